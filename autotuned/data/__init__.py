"""Data that ships with the daemon: the pocket model, so that a first chat needs no network."""
