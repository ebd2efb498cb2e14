"""The sentences on memory: what a load takes, what it gives up, who leaves for it, and why it is refused.

``plan`` and its parts call them, as with ``reasons``. Invariant: each text is one line of plain words
with the numbers that decided, and ends with a full stop.
"""

from __future__ import annotations

from collections.abc import Sequence

from autotuned.core.memory import MemoryView, Resident, SwapPolicy
from autotuned.core.model import LayerGroup, ModelFacts
from autotuned.core.plan import FitClass, LoadShape, Need, Reason
from autotuned.policy.fit import Budget
from autotuned.policy.kv import kv_cache_bytes, layer_cells, recurrent_bytes
from autotuned.policy.pressure import used_percent
from autotuned.policy.wording import count, listed, size

KEPT_FOR_MEMORY = Reason(
    "kept-for-memory", "Memory is too short for a larger context, so the loaded one is kept."
)


def pressed(memory: MemoryView, context_tokens: int, pressed_tokens: int) -> Reason:
    """Why a context has less headroom."""
    text = f"{_pressure(memory)}, so the context is {pressed_tokens:,} tokens in place of {context_tokens:,}."
    return Reason("pressure", text)


def reduced(level: int, last_level: int, full: LoadShape, chosen: LoadShape, usable_bytes: int) -> Reason:
    """What was given up so that the load fits."""
    what = []
    if chosen.context_tokens != full.context_tokens:
        what.append(f"the context is {chosen.context_tokens:,} tokens in place of {full.context_tokens:,}")
    if chosen.key_cache_type != full.key_cache_type or chosen.value_cache_type != full.value_cache_type:
        what.append("the KV cache is Q8_0")
    usable = size(usable_bytes)
    text = f"{usable} can be used, so {listed(what)} (reduction {level} of {last_level})."
    return Reason("reduced", text)


def states(facts: ModelFacts, shape: LoadShape) -> tuple[Reason, ...]:
    """What the KV cache and the recurrent state take."""
    attention = tuple(group for group in facts.layer_groups if group.kv_heads)
    why: tuple[Reason, ...] = ()
    if attention:
        takes = f"The KV cache takes {size(kv_cache_bytes(facts, shape))}"
        why += (Reason("kv-cache", f"{takes}: {_cells(attention, facts, shape)}."),)
    state_bytes = recurrent_bytes(facts, shape)
    if state_bytes:
        text = f"The recurrent state takes {size(state_bytes)}, whatever the context."
        why += (Reason("recurrent-state", text),)
    return why


def taken(required_bytes: int, budget: Budget, fit_class: FitClass) -> tuple[Reason, ...]:
    """What the load takes in all, and what that means for the machine."""
    had = size(budget.available_bytes)
    why = (Reason("memory", f"The load takes {size(required_bytes)} of {had} that can be had."),)
    if fit_class is FitClass.MARGINAL:
        text = f"That leaves less than the {size(budget.margin_bytes)} that should stay free."
        return (*why, Reason("margin", text))
    if fit_class is FitClass.SWAP_RISK:
        lack = size(required_bytes - budget.available_bytes)
        return (*why, Reason("may-swap", f"The machine may swap: {lack} more than that are needed."))
    return why


def evicted(leaving: Sequence[Resident]) -> tuple[Reason, ...]:
    """Who leaves memory for the load."""
    if not leaving:
        return ()
    freed = size(sum(resident.freed_bytes - resident.promised_bytes for resident in leaving))
    names = listed([resident.model_id for resident in leaving])
    verb = "leaves" if len(leaving) == 1 else "leave"
    return (Reason("evictions", f"Idle {names} {verb} memory for it, which frees {freed}."),)


def prompt_cache(cache_bytes: int) -> tuple[Reason, ...]:
    """What is kept of conversations that are in no slot."""
    if not cache_bytes:
        return ()
    text = f"Up to {size(cache_bytes)} more may keep conversations that are in no slot."
    return (Reason("host-prompt-cache", text),)


def shrunk(
    facts: ModelFacts, memory: MemoryView, loaded: LoadShape, shape: LoadShape, freed_bytes: int
) -> tuple[Reason, ...]:
    """Why a loaded model that nobody uses becomes smaller."""
    what = []
    if shape.context_tokens != loaded.context_tokens:
        what.append(f"its context shrinks from {loaded.context_tokens:,} to {shape.context_tokens:,} tokens")
    if shape.key_cache_type != loaded.key_cache_type or shape.value_cache_type != loaded.value_cache_type:
        what.append("its KV cache becomes Q8_0")
    text = (
        f"{_pressure(memory)} and nobody uses the model, so {listed(what)}, which frees {size(freed_bytes)}."
    )
    return (Reason("shrunk", text), *states(facts, shape))


def limit_bytes(swap_policy: SwapPolicy, budget: Budget) -> int:
    """The most that a load may take."""
    if swap_policy is SwapPolicy.NEVER:
        return min(budget.usable_bytes, budget.capacity_bytes)
    return min(budget.available_bytes + budget.swap_bytes, budget.capacity_bytes)


def would_swap(need: Need, context_tokens: int, required_bytes: int, budget: Budget, fitting: int) -> str:
    """What is refused and what to do, for ``WouldSwap``. ``fitting`` is the context that would fit, or 0."""
    limit = size(limit_bytes(need.swap_policy, budget))
    if need.swap_policy is SwapPolicy.NEVER:
        had = f"{limit} can be used without swapping while {size(budget.margin_bytes)} stay free"
    else:
        had = f"memory and swap together have {limit} for it"
    needs = f"The model needs {size(required_bytes)} with {_context(need, context_tokens)}"
    if not fitting:
        return f"{needs}, but {had}, which no context fits; close other programs or take a smaller model."
    if need.context_tokens is not None or need.prompt_is_unknown:
        return f"{needs}, but {had}; ask for at most {fitting:,} tokens or close other programs."
    return (
        f"{needs}, but {had}; a context of {fitting:,} would fit: shorten the prompt or close other programs."
    )


def _context(need: Need, context_tokens: int) -> str:
    if need.context_tokens is not None:
        return f"the context of {context_tokens:,} tokens that was asked for"
    if need.prompt_is_unknown:
        return f"a context of {context_tokens:,} tokens, the least for a prompt that is not known yet"
    return f"the context of {context_tokens:,} tokens that the prompt needs"


def _pressure(memory: MemoryView) -> str:
    tier = memory.pressure.name.lower()
    return f"{used_percent(memory.reading)} % of the memory is in use (pressure is {tier})"


def _cells(attention: tuple[LayerGroup, ...], facts: ModelFacts, shape: LoadShape) -> str:
    """How the bytes of the cache come about: a product where all layers keep the same, else two kinds."""
    windowed = [group for group in attention if group.window_tokens]
    if windowed:
        whole = sum(group.layers_count for group in attention if not group.window_tokens)
        parts = [f"{count(whole, 'layer')} for all of {shape.context_tokens:,} tokens"] if whole else []
        layers = count(sum(group.layers_count for group in windowed), "layer")
        parts.append(f"{layers} for a window of {max(group.window_tokens for group in windowed):,}")
        return listed(parts)
    cells = layer_cells(attention[0], shape)
    cell_bytes = kv_cache_bytes(facts, shape) // cells
    if shape.kv_unified:
        slots = count(shape.slots_count, "slot")
        return f"{count(cells, 'token')} x {count(cell_bytes, 'byte')}, shared by {slots}"
    per_slot = cells // shape.slots_count
    return f"{count(per_slot, 'token')} x {count(shape.slots_count, 'slot')} x {count(cell_bytes, 'byte')}"
