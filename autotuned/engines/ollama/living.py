"""The models that the daemon has in Ollama's memory, and how others treat them.

``engine`` owns one. Ollama runs one process for each file: names that share a file share it, and who asks for
it with another context has it loaded anew.
Invariants: of two incarnations that share a process and differ in their context the older one is gone; what
somebody else did to a model is told for a while and then forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from autotuned.core.engine import Finding, Severity
from autotuned.core.ports import Clock
from autotuned.engines.ollama.client import Running
from autotuned.engines.ollama.model import OllamaModel
from autotuned.log import fields

# How long it is told that another client had a model loaded anew.
TOLD_SECONDS = 600.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Flip:
    """Another client's load. ``context_tokens`` is 0 where it was not seen."""

    context_tokens: int
    own_context_tokens: int
    seen_at: float


class Living:
    """Incarnations by what they run in."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._models: dict[str, list[OllamaModel]] = {}
        self._flips: dict[str, _Flip] = {}

    @property
    def all(self) -> tuple[OllamaModel, ...]:
        """Every incarnation that is not gone."""
        return tuple(model for models in self._models.values() for model in models)

    def add(self, model: OllamaModel) -> None:
        """A load is over. What it took the place of is gone."""
        incarnation = model.incarnation
        key = incarnation.model.runner_key
        for other in tuple(self._models.get(key, ())):
            if other.incarnation.context_tokens != incarnation.context_tokens:
                self.end(other, f'"{incarnation.model.name}", which has the same file, was loaded instead')
        self._models.setdefault(key, []).append(model)

    def remove(self, model: OllamaModel) -> bool:
        """Takes one out; whether nobody of ours is left in its process."""
        key = model.incarnation.model.runner_key
        left = [other for other in self._models.get(key, ()) if other is not model]
        if left:
            self._models[key] = left
        else:
            self._models.pop(key, None)
            self._flips.pop(model.incarnation.model.name, None)
        return not left

    def end(self, model: OllamaModel, cause: str) -> None:
        """One is gone."""
        self.remove(model)
        model.end(cause)

    def end_all(self, cause: str) -> None:
        """The server is gone."""
        for model in self.all:
            self.end(model, cause)

    def compare(
        self, before: Iterable[OllamaModel], running: Sequence[Running], runner_key: Callable[[str], str]
    ) -> None:
        """Holds what the server has against those that were there before it was asked."""
        by_key = {runner_key(each.name): each for each in running}
        for model in before:
            if model.is_gone or model.is_at_work:
                continue
            found = by_key.get(model.incarnation.model.runner_key)
            if found is None:
                self.end(model, "another program had Ollama unload it")
            elif found.context_length and found.context_length != model.shape.context_tokens:
                self._note(model, found.context_length)

    def note_reload(self, model: OllamaModel) -> None:
        """A request of ours waited for a load that we did not ask for."""
        known = self._flips.get(model.incarnation.model.name)
        self._note(model, known.context_tokens if known else 0)

    def findings(self) -> tuple[Finding, ...]:
        """What people should know of other clients."""
        now = self._clock.monotonic()
        self._flips = {name: flip for name, flip in self._flips.items() if now - flip.seen_at < TOLD_SECONDS}
        return tuple(_finding(name, flip) for name, flip in self._flips.items())

    def _note(self, model: OllamaModel, context_tokens: int) -> None:
        name, own = model.incarnation.model.name, model.shape.context_tokens
        before = self._flips.get(name)
        self._flips[name] = _Flip(context_tokens, own, self._clock.monotonic())
        if before is None or before.context_tokens != context_tokens:
            _log.warning(
                "another client had ollama load a model anew",
                extra=fields(model=name, context_tokens=context_tokens, own_context_tokens=own),
            )


def _finding(name: str, flip: _Flip) -> Finding:
    what = f"with {flip.context_tokens:,} tokens of context" if flip.context_tokens else "with other options"
    return Finding(
        code="ollama-shape-flipped",
        severity=Severity.WARNING,
        subject="ollama",
        text=(
            f'Another client loads "{name}" {what}, where the daemon has {flip.own_context_tokens:,}: each '
            "change between the two is a load, and all that was computed is lost."
        ),
        advice="Point that client at autotune, or have it ask for the same context.",
    )
