"""Every decision, as pure functions with reasons: no clock, no environment, no log, no await."""
