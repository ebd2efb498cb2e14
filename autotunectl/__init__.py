"""autotunectl: the daemon's client for a terminal. ``cli`` lists the verbs."""
