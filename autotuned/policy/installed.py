"""Which models of the registry are here already, under which ids.

``services.recommend`` and ``services.hardware`` ask. A model is known again by the name that it was pulled
by: a name of Ollama's is its id, a repository of Hugging Face is part of its path.
Invariant: what cannot be known again for certain counts as not installed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from autotuned.core.model import ModelEntry
from autotuned.core.registry import RegistryModel, RegistrySize
from autotuned.policy.catalogue import CatalogueModel
from autotuned.policy.recommend import HUGGING_FACE, OLLAMA, pull_name_of
from autotuned.policy.references import tagged


def installed_names(registry: Sequence[RegistryModel], models: Sequence[CatalogueModel]) -> Mapping[str, str]:
    """Ids by the names that would pull the same again."""
    found: dict[str, str] = {}
    for known in registry:
        for size in known.sizes:
            model = next((each for each in models if _is_here(each, known, size)), None)
            if model is not None and (name := pull_name_of(known, size)):
                found[name] = model.id
    return found


def known_model(entry: ModelEntry, registry: Sequence[RegistryModel]) -> RegistryModel | None:
    """What the registry has of an installed model; None where it does not know it."""
    return next(
        (model for model in registry if any(_is_it(entry, model, place) for place in model.names)), None
    )


def _is_here(model: CatalogueModel, known: RegistryModel, size: RegistrySize) -> bool:
    """A name of Ollama's and a repository of MLX's have one quantization, one of GGUF files several."""
    return any(
        _is_it(entry, known, size.of) and (size.of != HUGGING_FACE or _has_quantization(entry, size))
        for entry in model.entries
    )


def _is_it(entry: ModelEntry, known: RegistryModel, place: str) -> bool:
    name = known.names.get(place, "")
    if not name:
        return False
    if place == OLLAMA:
        return entry.id == tagged(name)
    return is_of_repository(entry, name)


def is_of_repository(entry: ModelEntry, name: str) -> bool:
    """Whether a file lies in the cache of Hugging Face as part of a repository."""
    return f"/models--{name.replace('/', '--')}/".lower() in entry.path.lower()


def _has_quantization(entry: ModelEntry, size: RegistrySize) -> bool:
    wanted = size.quantization.lower()
    if entry.facts is not None and entry.facts.quantization.lower() == wanted:
        return True
    in_name = rf"(?<![a-z0-9]){re.escape(wanted)}(?![a-z0-9_])"
    return re.search(in_name, entry.path.rpartition("/")[2].lower()) is not None
