"""Who gets compute, and when? Runtime, allocator, engines, traces, benchmarks, command line."""
