"""Whether a download would fit into the machine's memory, before its first byte.

``services.pulls`` asks. With what the registry knows of the model the planner's own arithmetic tells, else
its size alone. Invariant: what could never fit is refused until somebody insists; what does not fit now is
told, and so is what would leave other programs little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotuned.core.errors import ModelTooLarge
from autotuned.core.memory import MemoryView
from autotuned.core.model import ModelFacts
from autotuned.core.plan import Reason
from autotuned.policy.fit import capacity_of
from autotuned.policy.places import Place, PlaceBudget, not_now
from autotuned.policy.registry_facts import footprint_at
from autotuned.policy.situation import ShapeDefaults
from autotuned.policy.wording import size

# A first message and its reply.
LEAST_CONTEXT_TOKENS = 4096
# Weights that nothing else is known of: a tenth on top for cache and buffers, and the process.
UNKNOWN_SHARE_DIVISOR = 10
UNKNOWN_BYTES = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A model that is about to be downloaded. ``facts`` None where the registry does not know it.

    ``suggestion`` is the name of a model that does fit, "" where there is none.
    """

    model_id: str
    weights_bytes: int
    facts: ModelFacts | None
    suggestion: str = ""


def checked(
    wanted: Wanted,
    budgets: Sequence[PlaceBudget],
    defaults: ShapeDefaults,
    memory: MemoryView,
    *,
    allow_too_large: bool,
) -> tuple[Reason, ...]:
    """How it will fit. Raises ``ModelTooLarge`` where it never will, unless that is allowed."""
    needs = [
        _required(wanted, defaults, memory, budget)
        for budget in budgets
        if budget.is_used and budget.capacity_bytes > 0
    ]
    if not needs:
        return ()
    place = next((need for need in needs if need.required_bytes <= need.budget.capacity_bytes), None)
    if place is not None:
        return _fitting(place)
    if (tight := _tight(needs, memory)) is not None:
        return (tight,)
    roomy = max(needs, key=lambda need: need.budget.capacity_bytes)
    if allow_too_large:
        text = (
            f"It will take {roomy.how}, more than the {roomy.capacity} that a model may take of "
            f"{roomy.budget.name}."
        )
        return (Reason("too-large", text),)
    raise ModelTooLarge(
        _too_large(wanted, roomy),
        required_bytes=roomy.required_bytes,
        capacity_bytes=roomy.budget.capacity_bytes,
        suggestion=wanted.suggestion,
    )


@dataclass(frozen=True, slots=True)
class _Required:
    """What it takes of one kind of memory; ``how`` says that in words, and how sure it is."""

    budget: PlaceBudget
    required_bytes: int
    how: str

    @property
    def capacity(self) -> str:
        """What a model may take there, in words."""
        return size(self.budget.capacity_bytes)


def _fitting(place: _Required) -> tuple[Reason, ...]:
    text = f"It will take {place.how}, of the {place.capacity} that a model may take of {place.budget.name}."
    fits = Reason("fits", text)
    if place.required_bytes <= place.budget.available_bytes:
        return (fits,)
    return fits, not_now(place.budget)


def _tight(needs: Sequence[_Required], memory: MemoryView) -> Reason | None:
    """Of what leaves other programs less than they usually take, but what the planner would still load."""
    most = capacity_of(memory.reading)
    for need in needs:
        if need.budget.place is not Place.GPU and need.required_bytes <= most:
            text = (
                f"It will take {need.how}, which leaves other programs less than they usually take: close "
                f"nearly everything else before it loads."
            )
            return Reason("tight", text)
    return None


def _required(wanted: Wanted, defaults: ShapeDefaults, memory: MemoryView, budget: PlaceBudget) -> _Required:
    """With the planner's smaller cache where a whole one takes too much."""
    if wanted.facts is None:
        required = wanted.weights_bytes + wanted.weights_bytes // UNKNOWN_SHARE_DIVISOR + UNKNOWN_BYTES
        return _Required(budget, required, f"about {size(required)}, by its size alone")
    context = min(LEAST_CONTEXT_TOKENS, wanted.facts.train_context_tokens or LEAST_CONTEXT_TOKENS)
    on_gpu = budget.place is not Place.RAM
    whole, smaller = footprint_at(wanted.facts, context, defaults, memory, on_gpu=on_gpu)
    is_whole = whole.total_bytes <= budget.capacity_bytes
    required = (whole if is_whole else smaller).total_bytes
    cache = "" if is_whole or smaller == whole else " in Q8_0"
    return _Required(budget, required, f"{size(required)} with a context of {context:,} tokens{cache}")


def _too_large(wanted: Wanted, roomy: _Required) -> str:
    text = (
        f'"{wanted.model_id}" will not fit: it would take {roomy.how}, and a model may take '
        f"{roomy.capacity} of {roomy.budget.name} here"
    )
    return f'{text}; "{wanted.suggestion}" fits.' if wanted.suggestion else f"{text}."
