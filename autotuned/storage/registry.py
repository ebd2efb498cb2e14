"""The registry of downloadable models: a TOML file in the package, and one of the user's own.

``daemon`` makes a ``TomlRegistryFile``; ``services`` read it through the port ``RegistryFile``. A model of
the user's takes the place of one with the same id. Invariant: what is wrong with a user's model leaves out
that model and nothing else, and is told.
"""

from __future__ import annotations

import asyncio
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from autotuned.core.model import LayerGroup
from autotuned.core.registry import Rank, Registry, RegistryModel, RegistrySize

PACKAGED = Path(__file__).parents[1] / "data" / "registry.toml"
MOST_OWN_BYTES = 4 << 20
_ID = re.compile(r"[a-z0-9][a-z0-9._-]*")
_PLACES = frozenset({"ollama", "huggingface", "mlx"})

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
_Bytes = Annotated[int, msgspec.Meta(ge=1, le=1 << 50)]
_Small = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
_Score = Annotated[float, msgspec.Meta(ge=0, le=100)]


class _Layers(msgspec.Struct, forbid_unknown_fields=True):
    layers: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    kv_heads: _Small = 0
    key_length: _Small = 0
    value_length: _Small = 0
    window_tokens: _Small = 0
    recurrent_elements: _Count = 0


class _Size(msgspec.Struct, forbid_unknown_fields=True):
    of: str
    quantization: str
    bytes: _Bytes


class _Model(msgspec.Struct, forbid_unknown_fields=True):
    """One model as the file has it; ``scores`` are a number under "overall" and places by kind of task."""

    id: str
    parameters: Annotated[int, msgspec.Meta(ge=1, le=1 << 50)]
    names: dict[str, str]
    sizes: Annotated[list[_Size], msgspec.Meta(min_length=1)]
    name: str = ""
    publisher: str = ""
    released: str = ""
    license: str = ""
    active_parameters: _Count = 0
    architecture: str = ""
    layers: _Small = 0
    embedding_length: _Small = 0
    vocabulary_size: _Small = 0
    train_context_tokens: _Count = 0
    thinks: bool = False
    calls_tools: bool = False
    modalities: list[str] = msgspec.field(default_factory=lambda: ["text"])
    attention: list[_Layers] = msgspec.field(default_factory=list)
    notes: str = ""
    scores: dict[str, _Score | list[_Small]] = msgspec.field(default_factory=dict)
    sources: dict[str, str] = msgspec.field(default_factory=dict)


class _Unusable(Exception):
    """A clause: what is wrong with the user's file, or with a model in it."""


# Changes with whatever is done to the file; () where the system will not even tell that.
_Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was read, for as long as the user's file is as it was."""

    stamp: _Stamp | None
    registry: Registry


class TomlRegistryFile:
    """Reads both files, again when the user's has changed."""

    def __init__(self, own_file: Path) -> None:
        self._own_file = own_file
        self._kept: _Kept | None = None

    @property
    def own_file(self) -> Path:
        """Where the user's own models are looked for."""
        return self._own_file

    async def read(self) -> Registry:
        """All models by id, and what of the user's file was left out."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Registry:
        stamp = _stamp(self._own_file)
        if self._kept is not None and self._kept.stamp == stamp != ():
            return self._kept.registry
        models = {model.id: model for model in packaged_models()}
        own, problems = ((), ()) if stamp is None else _own_models(self._own_file)
        models |= {model.id: model for model in own}
        registry = Registry(models=tuple(models[each] for each in sorted(models)), problems=problems)
        self._kept = _Kept(stamp, registry)
        return registry


def packaged_models() -> tuple[RegistryModel, ...]:
    """The models that come with the package."""
    return tuple(
        _model(entry, is_own=False) for entry in tomllib.loads(PACKAGED.read_text("utf-8"))["models"]
    )


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _own_models(path: Path) -> tuple[tuple[RegistryModel, ...], tuple[str, ...]]:
    try:
        entries = _tables(path).get("models", [])
    except _Unusable as error:
        return (), (f"{path} {error}.",)
    if not isinstance(entries, list):
        return (), (f'{path}: "models" is no list of tables; begin each model with [[models]].',)
    models, problems = [], []
    for number, entry in enumerate(entries, start=1):
        try:
            models.append(_model(entry, is_own=True))
        except _Unusable as error:
            problems.append(f"{path}: model {number}{_named(entry)} was left out: {error}.")
    return tuple(models), tuple(problems)


def _tables(path: Path) -> dict[str, Any]:
    """What the file says. Raises ``_Unusable``."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _Unusable("is no file; remove it, or write models into a file of that name")
        with path.open("rb") as file:
            content = file.read(MOST_OWN_BYTES + 1)
        if len(content) > MOST_OWN_BYTES:
            raise _Unusable(f"is larger than {MOST_OWN_BYTES >> 20} MiB and was not read")
        return tomllib.loads(content.decode())
    except OSError as error:
        raise _Unusable(f"cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise _Unusable("is no TOML: it is nested too deeply") from error
    except ValueError as error:  # what tomllib raises, no UTF-8, or a number of 5,000 digits
        raise _Unusable(f"is no TOML: {error}") from error


def _named(entry: Any) -> str:
    name = entry.get("id") if isinstance(entry, Mapping) else None
    return f' ("{name[:80]}")' if isinstance(name, str) else ""


def _model(entry: Any, *, is_own: bool) -> RegistryModel:
    try:
        told = msgspec.convert(entry, _Model)
    except msgspec.ValidationError as error:
        raise _Unusable(str(error)) from error
    _require(told)
    return RegistryModel(
        id=told.id,
        name=told.name or told.id,
        publisher=told.publisher,
        license=told.license,
        released=told.released,
        parameters_count=told.parameters,
        active_parameters_count=told.active_parameters or told.parameters,
        architecture=told.architecture,
        layers_count=told.layers,
        embedding_length=told.embedding_length,
        vocabulary_size=told.vocabulary_size,
        train_context_tokens=told.train_context_tokens,
        layer_groups=tuple(
            LayerGroup(
                layers_count=group.layers,
                kv_heads=group.kv_heads,
                key_length=group.key_length,
                value_length=group.value_length,
                window_tokens=group.window_tokens,
                recurrent_elements=group.recurrent_elements,
            )
            for group in told.attention
        ),
        thinks=told.thinks,
        calls_tools=told.calls_tools,
        modalities=tuple(told.modalities),
        names=told.names,
        sizes=tuple(
            RegistrySize(of=size.of, quantization=size.quantization, size_bytes=size.bytes)
            for size in told.sizes
        ),
        overall_score=_overall(told.scores),
        ranks=_ranks(told.scores),
        sources=told.sources,
        notes=told.notes,
        is_own=is_own,
    )


def _require(told: _Model) -> None:
    """Raises ``_Unusable`` for what the fields' types do not tell."""
    if not _ID.fullmatch(told.id):
        raise _Unusable("its id has other characters than a-z, 0-9, dot, dash and underscore")
    unknown = (set(told.names) | {size.of for size in told.sizes}) - _PLACES
    if unknown:
        raise _Unusable(f'"{min(unknown)}" is no place that models come from; use {_listed(_PLACES)}')
    nameless = {size.of for size in told.sizes} - set(told.names)
    if nameless:
        raise _Unusable(f'a size is of "{min(nameless)}", under which it has no name')
    if told.active_parameters > told.parameters:
        raise _Unusable("more parameters are active than it has")
    if told.attention and sum(group.layers for group in told.attention) != told.layers:
        raise _Unusable(f'the layers of "attention" do not add up to {told.layers:,}')


def _overall(scores: Mapping[str, float | list[int]]) -> float | None:
    overall = scores.get("overall")
    if isinstance(overall, list):
        raise _Unusable('the score "overall" is no number')
    return overall


def _ranks(scores: Mapping[str, float | list[int]]) -> Mapping[str, Rank]:
    ranks = {}
    for task, rank in scores.items():
        if task == "overall":
            continue
        if not isinstance(rank, list) or len(rank) != 2 or not 1 <= rank[0] <= rank[1]:  # noqa: PLR2004 - a pair
            raise _Unusable(f'the score "{task}" is no pair of place and number of models')
        ranks[task] = Rank(place=rank[0], models_count=rank[1])
    return ranks


def _listed(names: frozenset[str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names))
