"""Whether a download would fit into the machine's memory, before its first byte.

``services.pulls`` asks. With what the registry knows of the model the planner's own arithmetic tells, else
its size alone. Invariant: what could never fit is refused until somebody insists; what does not fit now is
told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotuned.core.errors import ModelTooLarge
from autotuned.core.memory import MemoryView
from autotuned.core.model import ModelFacts
from autotuned.core.plan import Reason
from autotuned.policy.places import PlaceBudget
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
    used = [budget for budget in budgets if budget.is_used]
    roomy = max(used, key=lambda budget: budget.capacity_bytes, default=None)
    if roomy is None or roomy.capacity_bytes <= 0:
        return ()
    required, how = _required(wanted, defaults, memory, roomy.capacity_bytes)
    if required > roomy.capacity_bytes:
        if allow_too_large:
            text = f"It will take {how}, more than the {size(roomy.capacity_bytes)} of {roomy.name}."
            return (Reason("too-large", text),)
        raise ModelTooLarge(
            _too_large(wanted, how, roomy),
            required_bytes=required,
            capacity_bytes=roomy.capacity_bytes,
            suggestion=wanted.suggestion,
        )
    place = next(budget for budget in used if required <= budget.capacity_bytes)
    reasons = [Reason("fits", f"It will take {how}, of the {size(place.capacity_bytes)} of {place.name}.")]
    if required > place.available_bytes:
        text = (
            f"Now only {size(place.available_bytes)} can be had; "
            '"autotunectl hardware" tells which applications to close.'
        )
        reasons.append(Reason("not-now", text))
    return tuple(reasons)


def _required(
    wanted: Wanted, defaults: ShapeDefaults, memory: MemoryView, capacity_bytes: int
) -> tuple[int, str]:
    """Bytes, and how sure that is; with the planner's smaller cache where a whole one takes too much."""
    if wanted.facts is None:
        required = wanted.weights_bytes + wanted.weights_bytes // UNKNOWN_SHARE_DIVISOR + UNKNOWN_BYTES
        return required, f"about {size(required)}, by its size alone"
    context = min(LEAST_CONTEXT_TOKENS, wanted.facts.train_context_tokens or LEAST_CONTEXT_TOKENS)
    whole, smaller = footprint_at(wanted.facts, context, defaults, memory, on_gpu=False)
    is_whole = whole.total_bytes <= capacity_bytes
    required = (whole if is_whole else smaller).total_bytes
    cache = "" if is_whole or smaller == whole else " in Q8_0"
    return required, f"{size(required)} with a context of {context:,} tokens{cache}"


def _too_large(wanted: Wanted, how: str, roomy: PlaceBudget) -> str:
    text = (
        f'"{wanted.model_id}" will not fit: it would take {how}, and a model may take '
        f"{size(roomy.capacity_bytes)} of {roomy.name} here"
    )
    return f'{text}; "{wanted.suggestion}" fits.' if wanted.suggestion else f"{text}."
