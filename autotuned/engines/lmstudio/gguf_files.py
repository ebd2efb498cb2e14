"""Which file on this machine a listed model is: LM Studio does not tell its path.

``facts`` asks, in a thread. A file is a model's when it has exactly its size and lies in a folder that its
publisher or its name is part of; without a size, all of publisher, name and quantization have to agree.
Where several files pass, they have to be equal. Invariant: no match is better than a wrong one, whose
bytes would be planned with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autotuned.core.errors import ModelInvalid
from autotuned.core.model import ModelFacts
from autotuned.engines.gguf import read_header
from autotuned.engines.gguf_facts.facts import model_facts
from autotuned.engines.llamacpp.discovery import split_parts
from autotuned.engines.lmstudio.listing import ListedModel
from autotuned.engines.stores import lmstudio
from autotuned.engines.stores.files import Notes

_NO_LETTER = re.compile(r"[^a-z0-9]+")
_PROJECTOR = "mmproj"


@dataclass(frozen=True, slots=True)
class _Stored:
    """A model's files. ``folder`` is publisher and repository, ``projector_bytes`` those of its eyes."""

    paths: tuple[str, ...]
    folder: str
    size_bytes: int
    projector_bytes: tuple[int, ...]
    modified_nanoseconds: int


@dataclass(slots=True)
class GgufFiles:
    """The files of LM Studio's folder. ``folder`` None: there is none on this machine."""

    folder: Path | None
    _notes: Notes = field(default_factory=Notes)
    _known: dict[_Stored, ModelFacts | None] = field(default_factory=dict)

    def find(self, models: Sequence[ListedModel]) -> dict[str, ModelFacts]:
        """The facts of those models that have a file here, by their keys. Blocks."""
        if self.folder is None or not any(model.is_gguf for model in models):
            return {}
        self._notes.begin()
        stored = self._stored(self.folder)
        self._known = {each: facts for each, facts in self._known.items() if each in set(stored)}
        found = {}
        for model in models:
            facts = [self._facts(each) for each in stored if model.is_gguf and _is_of(model, each)]
            if facts and facts[0] is not None and len({each.digest if each else "" for each in facts}) == 1:
                found[model.key] = facts[0]
        return found

    def _stored(self, folder: Path) -> list[_Stored]:
        files = [(each.path, each.folder) for each in lmstudio.gguf_files(folder, self._notes)]
        projectors: dict[str, list[int]] = {}
        for path, place in files:
            if _is_projector(path) and (status := _stat(path)):
                projectors.setdefault(place, []).append(status.st_size)
        found = []
        for path, place in files:
            split = None if _is_projector(path) else split_parts(path)
            parts = _present(split[1]) if split else None
            if parts:
                found.append(
                    _Stored(
                        paths=tuple(parts),
                        folder=place,
                        size_bytes=sum(status.st_size for status in parts.values()),
                        projector_bytes=tuple(projectors.get(place, ())),
                        modified_nanoseconds=max(status.st_mtime_ns for status in parts.values()),
                    )
                )
        return found

    def _facts(self, stored: _Stored) -> ModelFacts | None:
        """What the headers say, read once; None for files that are not sound."""
        if stored not in self._known:
            paths = [Path(path) for path in stored.paths]
            try:
                facts = model_facts(tuple(read_header(path) for path in paths), paths[0])
            except ModelInvalid as error:
                self._notes(stored.paths[0], error.message)
                facts = None
            self._known[stored] = facts
        return self._known[stored]


def _is_of(model: ListedModel, stored: _Stored) -> bool:
    publisher = stored.folder.partition("/")[0].lower() == model.publisher.lower()
    place = _letters(f"{stored.folder}/{_file_name(stored.paths[0])}")
    name = _letters(model.key.rpartition("/")[2].partition("@")[0]) in place
    if model.size_bytes < 0:
        return publisher and name and bool(model.quantization) and _letters(model.quantization) in place
    sizes = {stored.size_bytes, *(stored.size_bytes + each for each in stored.projector_bytes)}
    return model.size_bytes in sizes and (publisher or name)


def _letters(text: str) -> str:
    return _NO_LETTER.sub("", text.lower())


def _is_projector(path: str) -> bool:
    return _PROJECTOR in _file_name(path).lower()


def _file_name(path: str) -> str:
    return path.rpartition(os.sep)[2]


def _present(parts: Iterable[str]) -> dict[str, os.stat_result] | None:
    """The parts with what the system says of them; None where one is missing."""
    found = {}
    for part in parts:
        status = _stat(part)
        if status is None:
            return None
        found[part] = status
    return found


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116 - see ``StoredFile``
    except OSError:
        return None
