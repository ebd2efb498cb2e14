"""The context beyond what a request needs: for its session, for others like it, for the growth to come.

``plan`` adds it to a new context where it is safe for memory, and gives some of it up under pressure.
Invariant: it makes no context unsafe, nobody leaves memory for it, and what is given up is never the
prompt's.
"""

from __future__ import annotations

from autotuned.core.memory import PressureTier
from autotuned.core.plan import Need, Reason
from autotuned.policy import reasons
from autotuned.policy.pressure import HEADROOM_PERCENT
from autotuned.policy.profiles import PROFILES
from autotuned.policy.situation import Situation
from autotuned.policy.sizing import SMALLEST_CONTEXT_TOKENS, SPARE_TOKENS, snap_down


def other_slots(need: Need, situation: Situation, slots_count: int) -> int:
    """Tokens for the slots that share a context with the request: for each what requests usually need.

    That is at least 512 and at most the profile's context.
    """
    usual = max(situation.learned.usual_context_tokens, SMALLEST_CONTEXT_TOKENS)
    return (slots_count - 1) * min(usual, PROFILES[need.profile].context_tokens)


def expected_context(need: Need, situation: Situation) -> int:
    """The context that is expected to be needed beyond this request; 0 where nothing is.

    A growth at least doubles, so that a conversation sees few of them. The session's expected size
    counts always, that of the model's usual requests at a first load. Both were seen, so the profile,
    which bounds what is reserved on suspicion, does not bound them; memory does.
    """
    if situation.loaded is not None:
        return max(_with_spare(need.session_tokens), 2 * situation.loaded.context_tokens)
    return _with_spare(max(need.session_tokens, situation.learned.usual_context_tokens))


def told(need: Need, situation: Situation, context_tokens: int, *, unsafe: bool) -> Reason:
    """Why a context is larger than its request needs; ``unsafe`` where all of what is expected would be."""
    if situation.loaded is not None and 2 * situation.loaded.context_tokens >= need.session_tokens:
        return reasons.doubled(context_tokens, unsafe=unsafe)
    usual = situation.learned.usual_context_tokens
    if need.session_tokens >= usual:
        return reasons.session(need, context_tokens, unsafe=unsafe)
    return reasons.usual(usual, context_tokens, unsafe=unsafe)


def under_pressure(context_tokens: int, least_tokens: int, pressure: PressureTier) -> int:
    """The context with less headroom, snapped down: 90 % of it when ELEVATED, then 75 % and 50 %."""
    if pressure is PressureTier.NORMAL or context_tokens <= least_tokens:
        return context_tokens
    kept = (context_tokens - least_tokens) * HEADROOM_PERCENT[pressure] // 100
    return snap_down(least_tokens + kept, least_tokens)


def _with_spare(tokens: int) -> int:
    """What came to so much comes to a little more the next time; nothing expected stays nothing."""
    return tokens + SPARE_TOKENS if tokens else 0
