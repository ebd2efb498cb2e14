"""Who downloads a model, and under which name: the server of an engine that can, or the daemon itself.

``services.pulls`` asks for each pull, ``services.recommend`` who it would be. Invariant: an engine that
somebody names is taken, or refused with why; where nobody names one, a server that is ready comes before the
daemon's own store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autotuned.core.download import Offer, Reference, Source
from autotuned.core.engine import EngineState
from autotuned.core.errors import EngineUnreachable, FieldInvalid, Unsupported
from autotuned.core.model import EMBEDDED_ENGINE
from autotuned.core.ports import Engine
from autotuned.policy.references import shortest, tagged
from autotuned.policy.registry_facts import MLX
from autotuned.policy.routing import AUTO

OLLAMA_HUB = "hf.co"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How to get a reference: by an engine's server under its name for it, or by the downloader."""

    reference: Reference
    engine: Engine | None
    asked_engine: str

    @property
    def key(self) -> tuple[str, str]:
        """Equal for those who share one download."""
        is_tagged = self.reference.source is Source.OLLAMA_REGISTRY
        text = shortest(self.reference.text) if is_tagged else self.reference.text
        return (text, self.engine.name if self.engine else "")

    @property
    def engine_name(self) -> str:
        """Ollama has repositories of Hugging Face under names of its own."""
        name = self.reference.name
        if self.reference.source is Source.OLLAMA_REGISTRY:
            return name
        quantization = self.reference.quantization
        return f"{OLLAMA_HUB}/{name}" + (f":{quantization}" if quantization else "")


def chosen_way(reference: Reference, asked: str, engines: Sequence[Engine], prefer: str) -> Way:
    """Who pulls. Raises ``FieldInvalid``, ``EngineUnreachable`` or ``Unsupported``."""
    if asked in {EMBEDDED_ENGINE, MLX}:
        return Way(reference=reference, engine=None, asked_engine=asked)
    if asked:
        return Way(reference=reference, engine=_named(engines, asked), asked_engine=asked)
    return Way(reference=reference, engine=usual_server(reference.source, engines, prefer), asked_engine="")


def usual_server(source: Source, engines: Sequence[Engine], prefer: str) -> Engine | None:
    """The server that downloads where nobody names an engine; None where the daemon does, for llama.cpp."""
    if source is Source.HUGGING_FACE or prefer == EMBEDDED_ENGINE:
        return None
    return next(filter(_pulls_here, _by_preference(engines, prefer)), None)


def require_engine(way: Way, offer: Offer) -> None:
    """Raises ``Unsupported`` where the files are for another engine than was asked for."""
    if way.engine is None and way.asked_engine and offer.engine != way.asked_engine:
        raise Unsupported(
            f"{way.reference.text} is for the engine {offer.engine}, not for {way.asked_engine}; "
            f'"autotunectl pull {way.reference.text}" downloads it for that one.'
        )


def offered_by(way: Way, offer: Offer) -> Offer:
    """The offer as the one who pulls makes it: what a server downloads goes where it keeps its models."""
    if way.engine is None:
        return offer
    model_id = offer.model_id
    if way.reference.source is Source.HUGGING_FACE:
        model_id = tagged(way.engine_name)
    return replace(
        offer,
        model_id=model_id,
        engine=way.engine.name,
        folder="",
        free_bytes=None,
        missing_bytes=offer.size_bytes,
    )


def _named(engines: Sequence[Engine], name: str) -> Engine:
    engine = next((each for each in engines if each.name == name), None)
    if engine is None:
        known = ", ".join(sorted(each.name for each in engines))
        raise FieldInvalid("engine", f'there is no engine "{name}"; use one of: {known}.')
    if not engine.capabilities().pulls:
        raise Unsupported(
            f"{name} does not download for others: use its own program, or leave the engine out and "
            "the model comes for llama.cpp."
        )
    status = engine.status()
    if status.state not in {EngineState.READY, EngineState.STARTING}:  # a pull waits for its start
        detail = status.detail or f"it is {status.state.value}"
        raise EngineUnreachable(
            f"The engine {name} cannot pull: {detail}; leave the engine out, and the model comes for "
            "llama.cpp.",
            engine=name,
        )
    return engine


def _by_preference(engines: Sequence[Engine], prefer: str) -> Sequence[Engine]:
    return engines if prefer == AUTO else sorted(engines, key=lambda engine: engine.name != prefer)


def _pulls_here(engine: Engine) -> bool:
    capabilities = engine.capabilities()
    return capabilities.pulls and capabilities.is_local and engine.status().state is EngineState.READY
