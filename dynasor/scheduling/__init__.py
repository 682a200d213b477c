"""Gang scheduling: who is served next, as a pure function of what is known of each gang."""
