"""Reasoning programs: what to ask next. State machines without I/O."""
