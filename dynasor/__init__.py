"""Who gets compute, and when? Runtime, allocator, engines, traces, benchmarks, command line."""

from dynasor.ask import certain_answer

__all__ = ["certain_answer"]
