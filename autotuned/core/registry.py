"""Models that could be downloaded, as values: what the registry file says of each.

``storage.registry`` reads them, ``policy.recommend`` scores them, ``services.recommend`` lists them.
Invariant: what the file does not tell is None, 0 or empty; nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autotuned.core.model import LayerGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySize:
    """A file, or a folder of files, that can be downloaded.

    ``of`` says under which of the model's names it is: "ollama", "huggingface" or "mlx".
    """

    of: str
    quantization: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Rank:
    """A place among the models that were tested alike; 1 is the best."""

    place: int
    models_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryModel:
    """A model. ``overall_score`` is 0 to 100, None where nobody scored it; ``ranks`` by kind of task.

    ``active_parameters_count`` equals ``parameters_count`` for dense models. ``layer_groups`` are empty
    where the layers are not known. ``names`` are keyed like ``RegistrySize.of``, ``sources`` are URLs by what
    they back. ``is_own`` says that the user's file has it.
    """

    id: str
    name: str
    publisher: str
    license: str
    parameters_count: int
    active_parameters_count: int
    released: str = ""
    architecture: str = ""
    layers_count: int = 0
    embedding_length: int = 0
    vocabulary_size: int = 0
    train_context_tokens: int = 0
    layer_groups: tuple[LayerGroup, ...] = ()
    thinks: bool = False
    calls_tools: bool = False
    modalities: tuple[str, ...] = ("text",)
    names: Mapping[str, str] = field(default_factory=dict)
    sizes: tuple[RegistrySize, ...] = ()
    overall_score: float | None = None
    ranks: Mapping[str, Rank] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""
    is_own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """All of them by id. ``problems``: what of the user's file was left out and why, a sentence each."""

    models: tuple[RegistryModel, ...]
    problems: tuple[str, ...] = ()
