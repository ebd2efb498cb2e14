"""Talking to a model in a terminal: one question, or a conversation."""
