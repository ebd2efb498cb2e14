"""Models on the disk: where other programs and the daemon keep them, what they are called, how they go.

Engines read these folders. Invariant: nothing is written or deleted but by ``removal`` in the daemon's own
store of registry models, and by ``deletion`` and ``hub_removal`` where a person asks for it; what another
program looks after is never changed.
"""
