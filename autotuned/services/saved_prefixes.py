"""The saved KV prefixes as the daemon knows them: found by their boundaries, kept within the disk's cap.

Owned by ``services.prefixes``. Changes are made here first and written behind; what cannot be written is
taken back. Invariants: the files take no more than the cap once what is written has settled; an entry
whose file was found damaged is never offered again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace

from autotuned.core.errors import AutotuneError
from autotuned.core.ports import PrefixStore
from autotuned.core.prefix import PrefixChain, SavedPrefix
from autotuned.log import fields
from autotuned.policy.prefix_worth import to_evict
from autotuned.policy.prefixes import best_match, superseded

# So much of the disk is left to everybody else.
RESERVE_BYTES = 1 << 30

_Index = dict[str, dict[str, SavedPrefix]]

_log = logging.getLogger(__name__)


class SavedPrefixes:
    """The manifest in memory. Nothing here raises for what a disk does; it is logged."""

    def __init__(self, store: PrefixStore, cap_bytes: int) -> None:
        self._store = store
        self._cap_bytes = cap_bytes
        self._by_id: dict[str, SavedPrefix] = {}
        self._by_boundary: _Index = {}
        self._by_last_boundary: _Index = {}
        self._uncommitted: set[str] = set()
        self._writing: set[asyncio.Task[None]] = set()
        self._said_no_room = False

    @property
    def count(self) -> int:
        """How many are committed: they survive a kill."""
        return len(self._by_id) - len(self._uncommitted)

    @property
    def bytes_count(self) -> int:
        """Bytes that those take on the disk."""
        return sum(each.bytes_count for each in self._by_id.values() if each.id not in self._uncommitted)

    @property
    def all(self) -> tuple[SavedPrefix, ...]:
        """All of them."""
        return tuple(self._by_id.values())

    def best_match(self, chain: PrefixChain, *, rewinds: bool) -> tuple[SavedPrefix, int] | None:
        """See ``policy.prefixes.best_match``. Without ``rewinds`` it must end where one does."""
        return best_match(chain.boundaries, self._by_boundary if rewinds else self._by_last_boundary)

    async def read(self, now: float) -> None:
        """Reads the manifest. Raises what the store raises."""
        for saved in await self._store.prefixes():
            self._insert(saved)
        self._keep_within_cap(now)

    async def has_room(self, wanted: SavedPrefix, now: float) -> bool:
        """Whether a state of this size and worth goes to disk; those that are worth less make room for it."""
        try:
            free_bytes = await self._store.free_bytes()
        except AutotuneError as error:
            self._say_no_room(error.message, wanted)
            return False
        leaving = {each.id for each in self._superseded_by(wanted)}
        staying = [each for each in self._by_id.values() if each.id not in leaving]
        evicted = to_evict([*staying, wanted], self._cap_bytes, now)
        if wanted.id in evicted:
            self._say_no_room("the cap is full of what is worth more", wanted)
            return False
        freed_bytes = sum(each.bytes_count for each in staying if each.id in evicted)
        if free_bytes + freed_bytes < wanted.bytes_count + RESERVE_BYTES:
            self._say_no_room("the disk is almost full", wanted)
            return False
        if evicted:
            await self._remove_now(evicted)
        self._said_no_room = False
        return True

    def add(self, prefix: SavedPrefix, now: float) -> None:
        """A file was written. It can be used from now on; checksum and entry follow."""
        self._insert(prefix)
        self._uncommitted.add(prefix.id)
        self._write(self._commit(prefix, now))

    def remove(self, prefixes: Iterable[SavedPrefix]) -> None:
        """Forgets them now, and deletes them behind."""
        ids = [each.id for each in prefixes if self._drop(each.id)]
        if ids:
            self._write(self._delete(ids))

    def used(self, prefix: SavedPrefix, now: float) -> None:
        """One of them served a request."""
        current = self._by_id.get(prefix.id)
        if current is not None:
            self._insert(replace(current, last_used_at=now))
            self._write(self._touch(prefix.id, now))

    def discard_file(self, file_name: str) -> None:
        """Deletes a file that never became a prefix."""
        self._write(self._discard(file_name))

    async def is_sound(self, prefix: SavedPrefix) -> bool:
        """Whether the file is what was written. One that has no checksum yet was written a moment ago."""
        current = self._by_id.get(prefix.id)
        if current is None:
            return False
        if not current.sha256:
            return True
        try:
            return await self._store.digest(current.file_name) == current.sha256
        except AutotuneError:
            return False

    async def settled(self) -> None:
        """Returns when everything that was begun is on the disk, or was given up."""
        while self._writing:
            await asyncio.wait(self._writing)

    async def _commit(self, prefix: SavedPrefix, now: float) -> None:
        try:
            sha256 = await self._store.digest(prefix.file_name)
            if prefix.id not in self._by_id:
                return await self._discard(prefix.file_name)
            complete = replace(self._by_id[prefix.id], sha256=sha256)
            self._insert(complete)
            await self._store.add(complete)
        except AutotuneError as error:
            _log.warning("prefix was not saved", extra=fields(model=prefix.model_id, reason=error.reason))
            self._drop(prefix.id)
            return await self._discard(prefix.file_name)
        if prefix.id not in self._by_id:  # removed while it was committed
            return await self._delete([prefix.id])
        self._uncommitted.discard(prefix.id)
        await self._remove_now([each.id for each in self._superseded_by(complete)])
        self._keep_within_cap(now)
        return None

    async def _remove_now(self, ids: Sequence[str]) -> None:
        dropped = [each for each in ids if self._drop(each)]
        if dropped:
            await self._delete(dropped)

    async def _delete(self, ids: Sequence[str]) -> None:
        try:
            await self._store.remove(ids)
        except AutotuneError as error:
            _log.warning("prefixes were not deleted", extra=fields(count=len(ids), reason=error.reason))

    async def _touch(self, prefix_id: str, now: float) -> None:
        try:
            await self._store.touch(prefix_id, now)
        except AutotuneError as error:
            _log.warning("use of a prefix was not recorded", extra=fields(reason=error.reason))

    async def _discard(self, file_name: str) -> None:
        try:
            await self._store.discard_file(file_name)
        except AutotuneError as error:
            _log.warning("file was not deleted", extra=fields(file=file_name, reason=error.reason))

    def _superseded_by(self, prefix: SavedPrefix) -> list[SavedPrefix]:
        found = superseded(prefix.boundaries, self._by_last_boundary)
        return [each for each in found if each.id != prefix.id]

    def _keep_within_cap(self, now: float) -> None:
        evicted = to_evict(self._by_id.values(), self._cap_bytes, now)
        self.remove([self._by_id[each] for each in evicted])

    def _insert(self, prefix: SavedPrefix) -> None:
        self._by_id[prefix.id] = prefix
        for boundary in prefix.boundaries:
            self._by_boundary.setdefault(boundary, {})[prefix.id] = prefix
        self._by_last_boundary.setdefault(prefix.boundaries[-1], {})[prefix.id] = prefix

    def _drop(self, prefix_id: str) -> bool:
        prefix = self._by_id.pop(prefix_id, None)
        self._uncommitted.discard(prefix_id)
        if prefix is None:
            return False
        for boundary in prefix.boundaries:
            _take_out(self._by_boundary, boundary, prefix_id)
        _take_out(self._by_last_boundary, prefix.boundaries[-1], prefix_id)
        return True

    def _say_no_room(self, why: str, wanted: SavedPrefix) -> None:
        """Once, until there is room again."""
        if not self._said_no_room:
            _log.warning(
                "prefixes are not saved",
                extra=fields(why=why, model=wanted.model_id, bytes=wanted.bytes_count),
            )
        self._said_no_room = True

    def _write(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="write prefixes")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)


def _take_out(index: _Index, boundary: str, prefix_id: str) -> None:
    holders = index[boundary]
    holders.pop(prefix_id, None)
    if not holders:
        del index[boundary]
