"""The daemon's clients for a terminal."""
