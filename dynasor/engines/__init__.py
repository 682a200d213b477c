"""Engines: what runs a request."""
