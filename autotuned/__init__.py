"""autotuned: the daemon that owns a machine's local language models.

One staircase, downwards only: ``daemon -> rpc -> services -> policy -> core``. The wings
``engines``, ``hardware`` and ``storage`` implement the ports of ``core`` and are seen by
``daemon`` alone.
"""

from importlib.metadata import version

__version__ = version("autotuned")
