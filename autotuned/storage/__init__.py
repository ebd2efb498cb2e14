"""What outlives the daemon: SQLite, on one thread."""
