"""autotuned: the daemon that owns a machine's local language models.

One staircase, downwards only: ``daemon -> rpc -> services -> policy -> core``. The wings
``engines``, ``hardware`` and ``storage`` implement the ports of ``core`` and are seen by
``daemon`` alone.
"""

from autotune.version import __version__

__all__ = ["__version__"]
