"""Invented models to download and machines to run them on, small enough to reckon with by hand."""

from __future__ import annotations

from collections.abc import Mapping

import hypothesis.strategies as st

from autotuned.core.hardware import Bandwidth, BandwidthSource
from autotuned.core.memory import MemoryView, PressureTier
from autotuned.core.model import LayerGroup
from autotuned.core.registry import Rank, RegistryModel, RegistrySize
from autotuned.policy.places import Place, PlaceBudget
from autotuned.policy.recommendation import Circumstances
from tests.examples import DEFAULTS, PLENTY

GIB = 1 << 30
MEMORY = MemoryView(reading=PLENTY, pressure=PressureTier.NORMAL)
LAYERS = (LayerGroup(layers_count=32, kv_heads=8, key_length=128, value_length=128),)


def download(gib: float, *, of: str = "ollama", quantization: str = "Q4_K_M") -> RegistrySize:
    return RegistrySize(of=of, quantization=quantization, size_bytes=int(gib * GIB))


def model(model_id: str, gib: float = 4.0, score: float | None = 60.0, **changes) -> RegistryModel:
    """A dense model under the MIT license, of which Ollama has 4 bits; it takes 1 GiB for 8,192 tokens."""
    parameters = int(gib * 1.7e9)
    values = {
        "id": model_id,
        "name": model_id.title(),
        "publisher": "Acme",
        "license": "MIT",
        "parameters_count": parameters,
        "active_parameters_count": parameters,
        "architecture": "llama",
        "layers_count": 32,
        "embedding_length": 4096,
        "vocabulary_size": 32_000,
        "train_context_tokens": 131_072,
        "layer_groups": LAYERS,
        "calls_tools": True,
        "names": {"ollama": model_id},
        "sizes": (download(gib),),
        "overall_score": score,
    }
    return RegistryModel(**(values | changes))


def thinking(model_id: str, gib: float = 4.0, score: float | None = 60.0, **changes) -> RegistryModel:
    return model(model_id, gib, score, thinks=True, **changes)


def ranked(**places: int) -> Mapping[str, Rank]:
    """Places among a hundred."""
    return {task: Rank(place, 100) for task, place in places.items()}


def budget(
    capacity_gib: float,
    place: Place = Place.UNIFIED,
    *,
    gigabytes_per_second: float = 400,
    available_gib: float | None = None,
    is_used: bool = True,
) -> PlaceBudget:
    available = capacity_gib if available_gib is None else available_gib
    return PlaceBudget(
        place=place,
        name=place.value,
        capacity_bytes=int(capacity_gib * GIB),
        available_bytes=int(available * GIB),
        bandwidth=Bandwidth(
            bytes_per_second=int(gigabytes_per_second * 1e9), source=BandwidthSource.SPECIFIED
        ),
        reasons=(),
        is_used=is_used,
    )


def circumstances(*budgets: PlaceBudget, installed: Mapping[str, str] | None = None) -> Circumstances:
    return Circumstances(budgets=budgets, memory=MEMORY, defaults=DEFAULTS, installed=installed or {})


@st.composite
def models(draw: st.DrawFn) -> RegistryModel:
    """Dense models and mixtures, small and large, scored or not, of every license."""
    gib = draw(st.floats(0.3, 90))
    drawn = model(
        f"m{draw(st.integers(0, 999))}",
        gib,
        draw(st.one_of(st.none(), st.floats(0, 100))),
        publisher=draw(st.sampled_from(["Acme", "Umbrella", "Initech"])),
        license=draw(st.sampled_from(["MIT", "Apache-2.0", "Gemma terms"])),
        thinks=draw(st.booleans()),
        calls_tools=draw(st.booleans()),
        layer_groups=draw(st.sampled_from([(), LAYERS])),
        train_context_tokens=draw(st.sampled_from([0, 4096, 131_072])),
        ranks=draw(st.sampled_from([{}, ranked(chat=10, coding=50, math=1, agents=99)])),
    )
    if not draw(st.booleans()):
        return drawn
    active = max(drawn.parameters_count // draw(st.integers(2, 30)), 1)
    return model(
        drawn.id,
        gib,
        drawn.overall_score,
        publisher=drawn.publisher,
        license=drawn.license,
        thinks=drawn.thinks,
        calls_tools=drawn.calls_tools,
        layer_groups=drawn.layer_groups,
        ranks=drawn.ranks,
        active_parameters_count=active,
    )


@st.composite
def budgets(draw: st.DrawFn) -> tuple[PlaceBudget, ...]:
    """One or two kinds of memory, of unknown bandwidth or known."""
    places = draw(st.sampled_from([(Place.RAM,), (Place.UNIFIED,), (Place.GPU, Place.RAM)]))
    return tuple(
        budget(
            draw(st.floats(0, 128)),
            place,
            gigabytes_per_second=draw(st.sampled_from([0, 40, 100, 400, 1000])),
            available_gib=0,
            is_used=place is not Place.GPU or draw(st.booleans()),
        )
        for place in places
    )
