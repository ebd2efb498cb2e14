"""The model files that this engine can run: where they lie, what they are called, what they say.

``engine`` owns one ``ModelFiles`` and asks it for the list. A header is read once and then only
when size, modification time or inode of its file changed. Copies of one file share their facts.

Names: a model is called by the stem of its file, without the "-00001-of-00003" of a split one. When
two files have the same stem, the packaged model comes first, then the models folder in alphabetical
order, then the configured files; a later one is called "folder/stem", and by its whole path when
that is taken too. A file that is reached twice is listed once.
Invariant: ``scan`` blocks and belongs in a thread; it never raises for what it finds on disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autotuned.core.errors import ModelInvalid
from autotuned.core.model import ModelEntry, ModelFacts
from autotuned.engines.gguf import read_header
from autotuned.engines.llamacpp.facts import model_facts

POCKET = Path(__file__).parents[2] / "data" / "pocket.gguf"

_SPLIT = re.compile(r"^(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})$")


@dataclass(frozen=True, slots=True)
class _File:
    """What identifies the content of a file. A size of -1 is one that cannot be reached."""

    path: Path
    size_bytes: int
    modified_nanoseconds: int
    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class _Read:
    """What a model's files said when they were last read."""

    facts: ModelFacts | None
    problem: str


class ModelFiles:
    """Finds and remembers model files."""

    def __init__(self, *, engine: str, models_folder: Path, files: tuple[Path, ...]) -> None:
        self._engine = engine
        self._models_folder = models_folder
        self._files = files
        self._known: dict[tuple[_File, ...], _Read] = {}

    def scan(self) -> tuple[ModelEntry, ...]:
        """All models there are now. Blocks: a ``stat`` for each file, a header for each new one."""
        known: dict[tuple[_File, ...], _Read] = {}
        entries: dict[str, ModelEntry] = {}
        by_digest: dict[str, _Read] = {}
        seen = set()
        for path in self._first_parts():
            stem, parts = split_parts(path)
            files = tuple(_stat(part) for part in parts)
            identity = (files[0].device, files[0].inode) if files[0].size_bytes >= 0 else path
            if identity in seen:
                continue
            seen.add(identity)
            known[files] = _shared(self._known.get(files) or _read(files), by_digest)
            name = _free_name(_text(stem), path, entries)
            entries[name] = ModelEntry(
                id=name,
                engine=self._engine,
                path=_text(str(path)),
                size_bytes=sum(max(file.size_bytes, 0) for file in files),
                facts=known[files].facts,
                problem=known[files].problem,
            )
        self._known = known
        return tuple(entries.values())

    def _first_parts(self) -> Iterator[Path]:
        """The files that are a model or the first part of one."""
        for path in (POCKET, *sorted(_gguf_files(self._models_folder)), *self._files):
            split = _SPLIT.match(path.stem)
            if split is None or int(split["part"]) == 1:
                yield path


def split_parts(path: Path) -> tuple[str, tuple[Path, ...]]:
    """The stem that names a model, and all files of it, which are several for a split one."""
    split = _SPLIT.match(path.stem)
    if split is None:
        return path.stem, (path,)
    stem, parts = split["stem"], split["parts"]
    return stem, tuple(
        path.with_name(f"{stem}-{part:05d}-of-{parts}{path.suffix}") for part in range(1, int(parts) + 1)
    )


def _gguf_files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        visible = (name for name in names if not name.startswith("."))
        yield from (Path(parent, name) for name in visible if name.lower().endswith(".gguf"))


def _stat(path: Path) -> _File:
    try:
        status = path.stat()
    except OSError:
        return _File(path, -1, 0, 0, 0)
    return _File(path, status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino)


def _read(files: tuple[_File, ...]) -> _Read:
    paths = tuple(file.path for file in files)
    if missing := [file.path for file in files if file.size_bytes < 0]:
        return _Read(
            None, f'"{_text(str(missing[0]))}" is missing or cannot be read; put the file there again.'
        )
    if odd := [path for path in paths if not path.is_file()]:
        return _Read(None, f'"{_text(str(odd[0]))}" is not a regular file.')
    if _text(str(paths[0])) != str(paths[0]):
        return _Read(None, f'"{_text(str(paths[0]))}" has a name that is not valid text; rename the file.')
    try:
        return _Read(model_facts(tuple(read_header(path) for path in paths), paths[0]), "")
    except ModelInvalid as error:
        return _Read(None, error.message)


def _shared(read: _Read, by_digest: dict[str, _Read]) -> _Read:
    """What was read of an equal file before, where there is one: a template is kept once."""
    if read.facts is None:
        return read
    before = by_digest.setdefault(read.facts.digest, read)
    return before if before == read else read


def _text(name: str) -> str:
    """A file name as text that can be sent: bytes that are not UTF-8 become "?"."""
    return name.encode(errors="replace").decode()


def _free_name(stem: str, path: Path, taken: dict[str, ModelEntry]) -> str:
    names = (stem, _text(f"{path.parent.name}/{stem}"), _text(str(path)))
    return next((name for name in names if name not in taken), f"{_text(str(path))}#{len(taken)}")
