"""One list of models from what every engine offers: each content once, with where it can run.

``services.models`` joins whenever it looks. Two engines offer one model when their entries have the same
content; the same name for different content is two models. Invariant: every entry is in exactly one
model, and every name leads to exactly one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotuned.core.model import ModelEntry

DEFAULT_TAG = ":latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueModel:
    """A model. ``entries`` are its places to run, one an engine; ``aliases`` other names of it."""

    id: str
    entries: tuple[ModelEntry, ...]
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that leads to it, but for those with an engine before them."""
        return (self.id, *self.aliases)


def joined(entries: Sequence[ModelEntry]) -> tuple[CatalogueModel, ...]:
    """The models of these entries, which come in the order of preference of their engines, by id.

    Entries of one name and one content are one model. A model of another engine alone with the same
    content and another name is the same, too, and its name an alias. A name that is taken gets its
    engine before it.
    """
    groups: dict[str, list[ModelEntry]] = {}
    for entry in entries:
        name = entry.id
        while (group := groups.setdefault(name, [])) and not _is_same(entry, group):
            name = f"{entry.engine}/{name}"
        group.append(entry)
    return _folded(groups)


def named(models: Sequence[CatalogueModel], name: str) -> CatalogueModel | None:
    """The model that a name leads to. A name without a tag stands for the one with ":latest"."""
    for wanted in (name, name + DEFAULT_TAG):
        for model in models:
            if wanted in model.names:
                return model
    return None


def placed(models: Sequence[CatalogueModel], name: str, engine: str) -> CatalogueModel | None:
    """The model that an engine itself has under a name, whatever others call so; tags as in ``named``."""
    for wanted in (name, name + DEFAULT_TAG):
        for model in models:
            if any(entry.engine == engine and entry.id == wanted for entry in model.entries):
                return model
    return None


def _folded(groups: dict[str, list[ModelEntry]]) -> tuple[CatalogueModel, ...]:
    by_digest: dict[str, list[str]] = {}
    aliases: dict[str, list[str]] = {}
    for name, group in _by_likeness(groups):
        digest = _digest(group[0])
        for other in by_digest.get(digest, []) if digest else []:
            if all(_is_elsewhere(entry, groups[other]) for entry in group):
                groups[other] += group
                aliases.setdefault(other, []).append(name)
                del groups[name]
                break
        else:
            by_digest.setdefault(digest, []).append(name)
    return tuple(
        CatalogueModel(id=name, entries=tuple(groups[name]), aliases=tuple(aliases.get(name, ())))
        for name in sorted(groups)
    )


def _by_likeness(groups: dict[str, list[ModelEntry]]) -> list[tuple[str, list[ModelEntry]]]:
    """Of what one engine has, first what another one has under this name without the tag."""
    rank = {
        engine: index
        for index, engine in enumerate(dict.fromkeys(each[0].engine for each in groups.values()))
    }
    return sorted(
        groups.items(),
        key=lambda item: (
            rank[item[1][0].engine],
            not item[0].endswith(DEFAULT_TAG) or item[0].removesuffix(DEFAULT_TAG) not in groups,
        ),
    )


def _is_same(entry: ModelEntry, group: Sequence[ModelEntry]) -> bool:
    return _is_elsewhere(entry, group) and bool(_digest(entry)) and _digest(entry) == _digest(group[0])


def _is_elsewhere(entry: ModelEntry, group: Sequence[ModelEntry]) -> bool:
    return all(other.engine != entry.engine for other in group)


def _digest(entry: ModelEntry) -> str:
    return entry.facts.digest if entry.facts else ""
