"""Stop rules, one idea a file; `certaindex.stopping` names them all."""
