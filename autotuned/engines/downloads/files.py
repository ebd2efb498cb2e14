"""Fetches one file: it goes on from what is there, through cuts and pauses, and is verified.

The sources use it in the worker. Invariants: the file has its name only with the size and the hash that
were promised; what came stays, unless it is wrong; an answer that does not look like the file's is not taken.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx

from autotuned.engines.downloads.access import require_no_page
from autotuned.engines.downloads.disk import DISK_FULL
from autotuned.engines.downloads.part import SUFFIX, Hash, Part, file_bytes, part_bytes, part_path, try_lock
from autotuned.engines.downloads.patience import Interrupted, Patience
from autotuned.engines.downloads.protocol import DownloadFailure

LOCK_PAUSE_SECONDS = 0.2
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

Open = Callable[[int], AbstractContextManager[httpx.Response]]
"""Asks for the file from an offset. Raises ``Interrupted`` or ``DownloadFailure``."""
TellFile = Callable[[str, int, str], None]
"""Takes the phase, how many bytes of the file are here, and why it waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A file, and what was promised of it.

    ``checksum`` is what ``new_hash`` makes of it, SHA-256 as a rule, in hexadecimal digits; ``host`` has it.
    """

    target: Path
    size_bytes: int
    checksum: str
    host: str
    new_hash: Callable[[], Hash] = hashlib.sha256
    suffix: str = SUFFIX

    @property
    def part(self) -> Path:
        """Where what has come so far lies."""
        return part_path(self.target, self.suffix)

    @property
    def is_here(self) -> bool:
        """Whether it is complete."""
        return file_bytes(self.target) == self.size_bytes


def fetch_file(wanted: Wanted, open_at: Open, patience: Patience, tell: TellFile) -> int:
    """Fetches it where it is not here; returns the bytes that came over the network.

    Raises ``DownloadFailure``, or ``OSError`` where the disk refuses.
    """
    while not wanted.is_here:
        descriptor = try_lock(wanted.part)
        if descriptor is None:
            here_bytes = min(part_bytes(wanted.target, wanted.suffix), wanted.size_bytes)
            tell("waiting", here_bytes, "another download of the same file is under way")
            time.sleep(LOCK_PAUSE_SECONDS)
            continue
        part = Part(wanted.part, descriptor, wanted.new_hash)
        try:
            return _Transfer(wanted, part, open_at, patience, tell).run()
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise DownloadFailure(
                "STORAGE_FULL",
                f"The disk of {wanted.target.parent} is full after {part.size_bytes:,} of "
                f"{wanted.size_bytes:,} bytes; what came is kept, make room and pull again to go on.",
            ) from error
        finally:
            part.close()
    return 0


class _Transfer:
    """One file on its way."""

    def __init__(self, wanted: Wanted, part: Part, open_at: Open, patience: Patience, tell: TellFile) -> None:
        self._wanted = wanted
        self._part = part
        self._open = open_at
        self._patience = patience
        self._tell = tell
        self._honours_ranges = True
        self._furthest_bytes = 0
        self._fetched_bytes = 0

    def run(self) -> int:
        if self._wanted.is_here:
            self._part.remove()
            return 0
        self._part.read(lambda count: self._tell("verifying", min(count, self._wanted.size_bytes), ""))
        if self._part.size_bytes > self._wanted.size_bytes:
            self._part.clear()
        is_resumed = self._part.size_bytes > 0
        self._complete()
        if is_resumed and self._part.checksum != self._wanted.checksum:
            # What was there from before may be what is wrong.
            self._part.clear()
            self._complete()
        if self._part.checksum != self._wanted.checksum:
            self._part.remove()
            raise DownloadFailure(
                "DOWNLOAD_CORRUPT",
                f"{self._wanted.host} promised a file with the checksum {self._wanted.checksum} and sent one "
                f"with {self._part.checksum}; it was removed. Pull again later, or from elsewhere.",
            )
        self._tell("finishing", self._wanted.size_bytes, "")
        self._part.finish(self._wanted.target)
        return self._fetched_bytes

    def _complete(self) -> None:
        """Asks until all bytes are here."""
        self._furthest_bytes = self._part.size_bytes
        while self._part.size_bytes < self._wanted.size_bytes:
            try:
                self._ask()
            except Interrupted as interrupted:
                self._wait(interrupted)
            else:
                if self._part.size_bytes < self._wanted.size_bytes:
                    self._wait(Interrupted(f"{self._wanted.host} sent less than it promised"))

    def _wait(self, interrupted: Interrupted) -> None:
        seconds = self._patience.pause(interrupted)
        self._tell("waiting", self._part.size_bytes, interrupted.clause)
        time.sleep(seconds)

    def _ask(self) -> None:
        with self._open(self._part.size_bytes if self._honours_ranges else 0) as response:
            # A source that cannot go on in the midst sends again what is here: that is passed over.
            known_bytes = self._part.size_bytes - self._begin(response)
            for data in response.iter_raw():
                self._fetched_bytes += len(data)
                self._take(data[known_bytes:] if known_bytes else data)
                known_bytes = max(0, known_bytes - len(data))

    def _take(self, data: bytes) -> None:
        if len(data) > self._wanted.size_bytes - self._part.size_bytes:
            self._part.clear()
            raise self._wrong_size("more")
        self._part.write(data)
        if self._part.size_bytes > self._furthest_bytes:
            self._furthest_bytes = self._part.size_bytes
            self._patience.progress()
        self._tell("downloading", self._part.size_bytes, "")

    def _begin(self, response: httpx.Response) -> int:
        """Where in the file an answer begins, by its head; nothing of its body is taken where it is none."""
        require_no_page(response, self._wanted.host)
        begin, total = 0, response.headers.get("Content-Length", "")
        if response.status_code != httpx.codes.OK:
            match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
            is_partial = response.status_code == httpx.codes.PARTIAL_CONTENT and match is not None
            begin, total = (int(match[1]), match[2]) if match and is_partial else (-1, "")
            if not 0 <= begin <= self._part.size_bytes:
                self._honours_ranges = False
                raise Interrupted(f"{self._wanted.host} did not go on where the download stopped")
        if total.isdecimal() and int(total) != self._wanted.size_bytes:
            raise self._wrong_size(f"{int(total):,}")
        return begin

    def _wrong_size(self, sent: str) -> DownloadFailure:
        return DownloadFailure(
            "DOWNLOAD_CORRUPT",
            f"{self._wanted.host} promised a file of {self._wanted.size_bytes:,} bytes and sends {sent}; "
            "nothing of that was kept. Pull again later, or from elsewhere.",
        )
