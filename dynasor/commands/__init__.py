"""One module a subcommand; heavy imports inside the functions, so that --help is quick."""
