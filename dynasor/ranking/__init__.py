"""Which requests and which queries are long: learned ranks, and what finished siblings add to them."""
