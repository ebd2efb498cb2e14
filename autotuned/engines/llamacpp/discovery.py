"""The model files that this engine can run: where they lie, what they are called, what they say.

``engine`` owns one ``ModelFiles`` and asks it for the list. A header is read once and then only
when size, modification time or inode of its file changed. Copies of one file share their facts.

Names: a model is called by the stem of its file, without the "-00001-of-00003" of a split one. When
two files have the same stem, the packaged model comes first, then the models folder in alphabetical
order, then the configured files; a later one is called "folder/stem", and by its whole path when
that is taken too. A file that is reached twice is listed once.

The stores of other programs come last: Ollama's, LM Studio's, Hugging Face's cache. Ollama's names
stay as they are, and a file that has several is listed under each of them. In the other two the folder
of "folder/stem" is "publisher/repository". A file that was listed before is not listed again, and
neither is a copy of one that has the same name. Of a store only what can answer is listed: no
embedding models, no projectors, no vocabularies, nothing that is not all there.
Invariant: ``scan`` blocks and belongs in a thread; it never raises for what it finds on disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from autotuned.core.errors import ModelInvalid
from autotuned.core.model import ModelEntry, ModelFacts
from autotuned.engines.gguf import GgufHeader, read_header
from autotuned.engines.gguf_facts.facts import model_facts
from autotuned.engines.model_defaults import NO_DEFAULTS, ModelDefaults
from autotuned.engines.stores import huggingface, lmstudio
from autotuned.engines.stores.files import Notes, StoredFile
from autotuned.engines.stores.folders import NO_STORES, StoreFolders
from autotuned.engines.stores.ollama import OllamaStore

POCKET = Path(__file__).parents[2] / "data" / "pocket.gguf"

_SPLIT = re.compile(r"^(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>(?!0{5})\d{5})$")


@dataclass(frozen=True, slots=True)
class _File:
    """What identifies the content of a file. A size of -1 is one that cannot be reached."""

    path: str
    size_bytes: int
    modified_nanoseconds: int
    device: int
    inode: int

    @property
    def identity(self) -> tuple[int, int] | str:
        """Equal for all paths that lead to it."""
        return (self.device, self.inode) if self.size_bytes >= 0 else self.path


@dataclass(frozen=True, slots=True)
class _Read:
    """What a model's files said when they were last read.

    ``is_sound`` says that the headers could be read, ``can_answer`` that what they describe is no
    embedding model and no part of one.
    """

    facts: ModelFacts | None
    problem: str
    is_sound: bool = False
    can_answer: bool = False


@dataclass(slots=True)
class _Scan:
    """One look at everything. ``seen`` has the files; True for one that came with a name of its own.

    ``defaults`` has what the names of the stores bring besides the files, by the model's id.
    """

    before: dict[tuple[_File, ...], _Read]
    known: dict[tuple[_File, ...], _Read] = field(default_factory=dict)
    entries: dict[str, ModelEntry] = field(default_factory=dict)
    defaults: dict[str, ModelDefaults] = field(default_factory=dict)
    seen: dict[tuple[int, int] | str, bool] = field(default_factory=dict)
    by_digest: dict[str, _Read] = field(default_factory=dict)

    def read(self, files: tuple[_File, ...]) -> _Read:
        """What the files say; they are opened only where that is not known yet."""
        read = self.known.get(files)
        if read is None:
            read = self.known[files] = _shared(self.before.get(files) or _read(files), self.by_digest)
        return read


class ModelFiles:
    """Finds and remembers model files."""

    def __init__(
        self, *, engine: str, models_folder: Path, files: tuple[Path, ...], stores: StoreFolders = NO_STORES
    ) -> None:
        self._engine = engine
        self._models_folder = models_folder
        self._files = files
        self._stores = stores
        self._ollama = tuple(OllamaStore(folder) for folder in stores.ollama)
        self._notes = Notes()
        self._known: dict[tuple[_File, ...], _Read] = {}
        self._defaults: dict[str, ModelDefaults] = {}

    def defaults_of(self, model_id: str) -> ModelDefaults:
        """What the name of a model brings besides its file, as the last scan saw it."""
        return self._defaults.get(model_id, NO_DEFAULTS)

    def scan(self) -> tuple[ModelEntry, ...]:
        """All models there are now. Blocks: a ``stat`` for each file, a header for each new one."""
        scan = _Scan(self._known)
        self._notes.begin()
        for path in self._own_files():
            self._add_own(scan, path)
        for stored in self._stored_files():
            self._add_stored(scan, stored)
        self._known, self._defaults = scan.known, scan.defaults
        return tuple(scan.entries.values())

    def _own_files(self) -> Iterator[Path]:
        """The files that are the user's to manage here."""
        return iter((POCKET, *sorted(_gguf_files(self._models_folder)), *self._files))

    def _stored_files(self) -> Iterator[StoredFile]:
        """The files of the stores."""
        for store in self._ollama:
            yield from store.files(self._notes)
        for module, folder in ((lmstudio, self._stores.lmstudio), (huggingface, self._stores.huggingface)):
            if folder is not None:
                yield from module.gguf_files(folder, self._notes)

    def _add_own(self, scan: _Scan, path: Path) -> None:
        split = split_parts(str(path))
        if split is None:
            return
        stem, files = split[0], _files(split[1])
        if files[0].identity in scan.seen:
            return
        scan.seen[files[0].identity] = False
        for name in _names(_text(stem), _text(path.parent.name), files[0].path, len(scan.entries)):
            if name not in scan.entries:
                scan.entries[name] = self._entry(name, files, scan.read(files))
                return

    def _add_stored(self, scan: _Scan, stored: StoredFile) -> None:
        split = split_parts(stored.path)
        if split is None:
            return
        stem, files = split[0], _files(split[1])
        if files[-1].size_bytes < 0 or stored.size_bytes not in {-1, files[0].size_bytes}:
            self._notes(stored.path, "it is missing, not all there, or cannot be reached")
            return
        has_name = scan.seen.get(files[0].identity)
        if has_name is not None and not (has_name and stored.name):
            return
        scan.seen.setdefault(files[0].identity, bool(stored.name))
        read = scan.read(files)
        if not read.is_sound:
            self._notes(stored.path, read.problem)
        if not read.can_answer:
            return
        for name in _names(_text(stored.name or stem), _text(stored.folder), stored.path, len(scan.entries)):
            taken = scan.entries.get(name)
            if taken is None:
                scan.entries[name] = self._entry(name, files, read)
                scan.defaults[name] = stored.defaults
            if taken is None or (taken.facts and read.facts and taken.facts.digest == read.facts.digest):
                return

    def _entry(self, name: str, files: tuple[_File, ...], read: _Read) -> ModelEntry:
        return ModelEntry(
            id=name,
            engine=self._engine,
            path=_text(files[0].path),
            size_bytes=sum(max(file.size_bytes, 0) for file in files),
            facts=read.facts,
            problem=read.problem,
        )


def split_parts(path: str) -> tuple[str, Iterator[str]] | None:
    """The stem that names a model, and its files, which are several for a split one; None for later parts."""
    folder, separator, name = path.rpartition(os.sep)
    stem, dot, suffix = name.rpartition(".")
    if not stem or not suffix:
        stem, dot, suffix = name, "", ""
    split = _SPLIT.match(stem)
    if split is None:
        return stem, iter((path,))
    if int(split["part"]) != 1:
        return None
    stem, parts = split["stem"], split["parts"]
    return stem, (
        f"{folder}{separator}{stem}-{part:05d}-of-{parts}{dot}{suffix}" for part in range(1, int(parts) + 1)
    )


def _gguf_files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        visible = (name for name in names if not name.startswith("."))
        yield from (Path(parent, name) for name in visible if name.lower().endswith(".gguf"))


def _stat(path: str) -> _File:
    try:
        status = os.stat(path)  # noqa: PTH116 - hundreds of paths a scan, which are texts already
    except OSError:
        return _File(path, -1, 0, 0, 0)
    return _File(path, status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino)


def _files(parts: Iterator[str]) -> tuple[_File, ...]:
    """The files of a model, up to the first one that cannot be reached: a name may claim many."""
    files = []
    for part in parts:
        files.append(_stat(part))
        if files[-1].size_bytes < 0:
            break
    return tuple(files)


def _read(files: tuple[_File, ...]) -> _Read:
    paths = tuple(Path(file.path) for file in files)
    if missing := [file.path for file in files if file.size_bytes < 0]:
        return _Read(None, f'"{_text(missing[0])}" is missing or cannot be read; put the file there again.')
    if odd := [path for path in paths if not path.is_file()]:
        return _Read(None, f'"{_text(str(odd[0]))}" is not a regular file.')
    if _text(str(paths[0])) != str(paths[0]):
        return _Read(None, f'"{_text(str(paths[0]))}" has a name that is not valid text; rename the file.')
    try:
        headers = tuple(read_header(path) for path in paths)
    except ModelInvalid as error:
        return _Read(None, error.message)
    can_answer = _can_answer(headers)
    try:
        return _Read(model_facts(headers, paths[0]), "", is_sound=True, can_answer=can_answer)
    except ModelInvalid as error:
        return _Read(None, error.message, is_sound=True, can_answer=can_answer)


def _can_answer(headers: tuple[GgufHeader, ...]) -> bool:
    """Whether this is meant to generate text, be it that the engine can run it or not.

    A pooling type is what the converter writes for embedding models and rerankers.
    """
    values = headers[0].values
    architecture = values.get("general.architecture")
    return (
        values.get("general.type", "model") == "model"
        and architecture != "clip"
        and values.get(f"{architecture}.attention.causal") is not False
        and not values.get(f"{architecture}.pooling_type")
        and any(header.tensors_count for header in headers)
    )


def _shared(read: _Read, by_digest: dict[str, _Read]) -> _Read:
    """What was read of an equal file before, where there is one: a template is kept once."""
    if read.facts is None:
        return read
    before = by_digest.setdefault(read.facts.digest, read)
    return before if before == read else read


def _text(name: str) -> str:
    """A file name as text that can be sent: bytes that are not UTF-8 become "?"."""
    return name.encode(errors="replace").decode()


def _names(name: str, folder: str, path: str, number: int) -> Iterator[str]:
    """The names that a model may have, the preferred one first; the last one is always free."""
    yield name
    if folder:
        yield f"{folder}/{name}"
    yield _text(path)
    yield f"{_text(path)}#{number}"
