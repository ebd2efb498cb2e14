"""Models that other programs downloaded: where they keep them and what they call them.

Engines read these folders; nothing here writes, and nothing is copied.
"""
