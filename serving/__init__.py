"""How do users reach it? The HTTP endpoint is to come."""
