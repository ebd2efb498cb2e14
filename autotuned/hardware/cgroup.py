"""What the control groups around this process leave it of memory and swap.

``hardware.memory`` joins it with the machine's memory. A group is not its machine: where one has a
limit, the limit is the memory there is, and its use counts, whoever in the group it is.

Groups are nested and every one on the way up may have a limit; the least is what holds. Version 1
calls it ``memory.limit_in_bytes`` (an enormous number means none); version 2 ``memory.max``, with
``memory.high`` as good as a limit because above it everybody in the group is held up.

Use includes the cache of files. Of it the kernel drops, before it kills, the pages on the lists
``inactive_file`` and ``active_file`` and (version 2) ``slab_reclaimable``. Pages that a process maps are
on these lists too, and dropping those would read a model's weights from disk again for each
token: they count as used. Sources: Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autotuned.hardware.cgroup_paths import UNIFIED, find_folders
from autotuned.hardware.texts import parse_counters, read_text, whole_number

LEAST_NO_LIMIT_BYTES = 1 << 60
"""Version 1 writes "no limit" as the largest multiple of a page below 2**63; no machine is so large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMemory:
    """One group. ``limit_bytes`` is None without a limit, and ``available_bytes`` then too.

    ``swap_limit_bytes`` and ``swap_free_bytes`` are None where the group may use all swap.
    """

    limit_bytes: int | None = None
    available_bytes: int | None = None
    swap_limit_bytes: int | None = None
    swap_free_bytes: int | None = None


def tightest(groups: Iterable[GroupMemory]) -> GroupMemory:
    """What all of these groups, one in another, leave: the least of each figure."""
    read = tuple(groups)
    return GroupMemory(
        limit_bytes=_least(group.limit_bytes for group in read),
        available_bytes=_least(group.available_bytes for group in read),
        swap_limit_bytes=_least(group.swap_limit_bytes for group in read),
        swap_free_bytes=_least(group.swap_free_bytes for group in read),
    )


def reclaimable_bytes(stat: dict[str, int]) -> int:
    """What the kernel can drop without harm, of a group's memory.stat with the groups below it.

    ``file_mapped`` (``mapped_file`` in version 1) includes shared memory, which is on other lists: at
    most ``shmem`` of it.
    """
    prefix = "total_" if "total_inactive_file" in stat else ""  # version 1 counts the groups below apart
    mapped_name = "mapped_file" if prefix else "file_mapped"
    cached = stat.get(f"{prefix}inactive_file", 0) + stat.get(f"{prefix}active_file", 0)
    mapped = max(0, stat.get(f"{prefix}{mapped_name}", 0) - stat.get(f"{prefix}shmem", 0))
    return max(0, cached - mapped) + stat.get("slab_reclaimable", 0)


@dataclass(frozen=True, slots=True)
class _Found:
    """Folders of the groups of both versions, own first, and the text that they were found by."""

    membership: str | None = None
    v1_folders: tuple[Path, ...] = ()
    v2_folders: tuple[Path, ...] = ()


class ControlGroups:
    """The groups that this process is in. They are looked up again when it has been moved."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found = _Found()

    @property
    def unified_folder(self) -> Path | None:
        """The folder of the process's own group of version 2, whose files tell of its pressure."""
        return self._found.v2_folders[0] if self._found.v2_folders else None

    def read(self) -> GroupMemory:
        """The least that the groups leave; all None without limits."""
        found = self._find()
        if found.v1_folders:
            return tightest(_read_v1(folder) for folder in found.v1_folders)
        return tightest(_read_v2(folder) for folder in found.v2_folders)

    def _find(self) -> _Found:
        membership = read_text(self._root / "proc/self/cgroup")
        if membership != self._found.membership:
            self._found = _Found(
                membership,
                tuple(_counted_together(find_folders("memory", self._root))),
                tuple(find_folders(UNIFIED, self._root)),
            )
        return self._found


def _counted_together(folders: list[Path]) -> Iterable[Path]:
    """Own group and those around it whose limit counts for it, which version 1 could switch off."""
    for folder in folders:
        if folder != folders[0] and (read_text(folder / "memory.use_hierarchy") or "1").strip() == "0":
            return
        yield folder


def _read_v1(folder: Path) -> GroupMemory:
    stat = parse_counters(read_text(folder / "memory.stat") or "")
    around = stat.get("hierarchical_memory_limit", LEAST_NO_LIMIT_BYTES)  # of groups that may be out of sight
    limit = _least((_limit_bytes(folder / "memory.limit_in_bytes"), _bounded(around)))
    if limit is None:
        return GroupMemory()
    both_limit = _limit_bytes(folder / "memory.memsw.limit_in_bytes")
    swap_limit = None if both_limit is None else max(0, both_limit - limit)
    return GroupMemory(
        limit_bytes=limit,
        available_bytes=_available_bytes(limit, folder / "memory.usage_in_bytes", stat),
        swap_limit_bytes=swap_limit,
        swap_free_bytes=None if swap_limit is None else max(0, swap_limit - stat.get("total_swap", 0)),
    )


def _read_v2(folder: Path) -> GroupMemory:
    limit = _least(_limit_bytes(folder / name) for name in ("memory.max", "memory.high"))
    swap_limit = _limit_bytes(folder / "memory.swap.max")
    available = swap_free = None
    if limit is not None:
        stat = parse_counters(read_text(folder / "memory.stat") or "")
        available = _available_bytes(limit, folder / "memory.current", stat)
    if swap_limit is not None:
        used = whole_number(read_text(folder / "memory.swap.current") or "") or 0
        swap_free = max(0, swap_limit - used)
    return GroupMemory(
        limit_bytes=limit,
        available_bytes=available,
        swap_limit_bytes=swap_limit,
        swap_free_bytes=swap_free,
    )


def _limit_bytes(path: Path) -> int | None:
    return _bounded(whole_number(read_text(path) or ""))


def _bounded(limit_bytes: int | None) -> int | None:
    return limit_bytes if limit_bytes is not None and limit_bytes < LEAST_NO_LIMIT_BYTES else None


def _available_bytes(limit_bytes: int, usage_path: Path, stat: dict[str, int]) -> int | None:
    usage = whole_number(read_text(usage_path) or "")
    if usage is None:
        return None
    return min(limit_bytes, max(0, limit_bytes - usage + reclaimable_bytes(stat)))


def _least(figures: Iterable[int | None]) -> int | None:
    return min((figure for figure in figures if figure is not None), default=None)
