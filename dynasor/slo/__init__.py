"""What a service promises, and the settings that keep it."""
