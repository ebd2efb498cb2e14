"""The bytes of a loaded model, as its worker reported them and as the system sees its process.

``log`` collects the buffers while the worker loads; ``engine`` makes the footprint of them once.
Invariant: a buffer is counted once, and no byte of it as the process's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import psutil

from autotuned.core.memory import Footprint
from autotuned.core.plan import LoadShape

# "load_tensors:   CPU_Mapped model buffer size =   131.82 MiB", and so for KV, RS, compute and output.
_BUFFER = re.compile(r"(?P<device>[\w-]+)\s+(?P<kind>\w+) buffer size\s*=\s*(?P<mib>[\d.]+) MiB", re.ASCII)
# Weights that CPU backends copy into an order of their own.
_REPACKED = re.compile("REPACK|AARCH64|AMX|KLEIDIAI|SPACEMIT")
_MAPPED = "CPU_Mapped"
_HOST = "CPU"
_MIB_BYTES = 1 << 20
_WEIGHTS = "model"
# Set aside anew whenever a computation is prepared; the last ones stay.
_COMPUTATION = frozenset({"compute", "output"})


class Buffers:
    """The buffers of one load, by device and kind."""

    def __init__(self) -> None:
        self._bytes: dict[tuple[str, str], int] = {}

    def add(self, line: str) -> None:
        """Takes a line of the log; most tell of no buffer."""
        if (match := _BUFFER.search(line)) is None:
            return
        key = (match["device"], match["kind"])
        before = 0 if match["kind"] in _COMPUTATION else self._bytes.get(key, 0)
        self._bytes[key] = before + round(float(match["mib"]) * _MIB_BYTES)

    def footprint(self, shape: LoadShape, process_id: int) -> Footprint:
        """These buffers, and what the process has in memory beside them at this moment.

        Checkpoints are not among them: the engine makes them while it serves.
        """
        sizes = self._bytes
        weights = sum(size for (_, kind), size in sizes.items() if kind == _WEIGHTS)
        repacked = sum(
            size for (device, kind), size in sizes.items() if kind == _WEIGHTS and _REPACKED.search(device)
        )
        compute = sum(size for (_, kind), size in sizes.items() if kind in _COMPUTATION)
        return Footprint(
            weights_bytes=weights - repacked,
            repacked_weights_bytes=repacked,
            kv_cache_bytes=sum(sizes.values()) - weights - compute,
            compute_bytes=compute,
            process_bytes=_process_bytes(sizes, process_id),
            host_prompt_cache_bytes=shape.host_prompt_cache_bytes,
        )


def _is_host(device: str) -> bool:
    """Whether a buffer lies in the machine's own memory: a CPU's, or one that a GPU reads there."""
    return device.startswith(_HOST) or device.endswith("_Host")


def _process_bytes(sizes: Mapping[tuple[str, str], int], process_id: int) -> int:
    """Memory of a process that has computed nothing yet, without its buffers; 0 where it is gone.

    The buffers of the computation are not in memory before the first batch, so they are not taken off.
    Private memory and pages of files are looked at each for itself: where part of a mapped file is not
    in memory, that must not hide what else is. On a GPU buffers are elsewhere.
    """
    try:
        memory = psutil.Process(process_id).memory_info()
    except (psutil.Error, ValueError):
        return 0
    host = {key: size for key, size in sizes.items() if _is_host(key[0])}
    mapped = sum(size for (device, _), size in host.items() if device == _MAPPED)
    private = sum(
        size for (device, kind), size in host.items() if device != _MAPPED and kind not in _COMPUTATION
    )
    # Only Linux tells pages of files apart.
    of_files = int(getattr(memory, "shared", min(mapped, memory.rss)))
    return max(0, int(memory.rss) - of_files - private) + max(0, of_files - mapped)
