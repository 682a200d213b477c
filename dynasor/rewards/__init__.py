"""Reward models: how good an answer, or its beginning, is."""
