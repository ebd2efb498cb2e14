"""The sentences in which a plan explains itself.

``plan`` decides and calls; people read the result in ``autotunectl ps`` and after an answer, and
programs switch on the codes. Invariant: each text is one line of plain words with the numbers that
decided, and ends with a full stop.
"""

from __future__ import annotations

from autotuned.core.model import ModelFacts
from autotuned.core.plan import LoadShape, Need, Reason
from autotuned.policy.kv import CELLS_STEP, QUANTISED_BLOCK_ELEMENTS, padded_context
from autotuned.policy.sizing import ASSUMED_TRAIN_CONTEXT_TOKENS, SPARE_TOKENS

_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def kept(need: Need, context_tokens: int, ceiling: int) -> tuple[Reason, ...]:
    """Why a loaded context stays as it is."""
    lack = _lack(need, context_tokens)
    if not lack:
        text = f"The loaded context of {context_tokens:,} tokens holds it."
    elif context_tokens >= ceiling:
        text = f"The loaded context of {context_tokens:,} tokens is the model's largest, so {lack}."
    else:
        text = f"The loaded context of {context_tokens:,} tokens is kept, so {lack}."
    return (*_demand(need, spare_tokens=0), Reason("kept", text))


def sized(need: Need, context_tokens: int, ceiling: int) -> tuple[Reason, ...]:
    """Why a new context has its size."""
    demand = _demand(need, spare_tokens=SPARE_TOKENS)
    if need.context_tokens is not None:
        return (*demand, _override_applied(need, need.context_tokens, context_tokens))
    if context_tokens == ceiling:
        return (*demand, _largest(need, ceiling))
    total = need.prompt_tokens + need.reply_tokens + SPARE_TOKENS
    if context_tokens == total:
        return (*demand, Reason("bucket", f"{total:,} is a bucket."))
    return (*demand, Reason("bucket", f"{total:,} snaps up to the bucket {context_tokens:,}."))


def grown(before_tokens: int, after_tokens: int) -> Reason:
    """Why a loaded model is loaded again."""
    text = f"The loaded context of {before_tokens:,} tokens is too small, so it grows to {after_tokens:,}."
    return Reason("grown", text)


def cache(facts: ModelFacts, shape: LoadShape, cache_bytes: int) -> tuple[Reason, ...]:
    """What the KV cache takes."""
    cells = padded_context(shape.context_tokens)
    cell_bytes = cache_bytes // (cells * shape.slots_count)
    factors = f"{_count(cells, 'token')} x {_count(shape.slots_count, 'slot')} x {_count(cell_bytes, 'byte')}"
    takes = Reason("kv-cache", f"The KV cache takes {_size(cache_bytes)}: {factors}.")
    if facts.kv_is_dense:
        return (takes,)
    bound = "Some layers keep less than full attention does, so the KV cache takes that at most."
    return (takes, Reason("kv-upper-bound", bound))


UNKNOWN_TRAIN_CONTEXT = Reason(
    "train-context-unknown",
    f"The model does not tell its largest context; {ASSUMED_TRAIN_CONTEXT_TOKENS:,} tokens are assumed "
    "unless a request sets more.",
)
NO_FLASH_ATTENTION = Reason(
    "value-cache", "The value cache is F16: a quantised one needs flash attention, which is off."
)


def odd_heads(cache_name: str, head_length: int) -> Reason:
    """Why the key or value cache is not quantised."""
    text = (
        f"The {cache_name} cache is F16: heads of {_count(head_length, 'element')} "
        f"do not divide into blocks of {QUANTISED_BLOCK_ELEMENTS}."
    )
    return Reason(f"{cache_name}-cache", text)


def context_above(asked_tokens: int, ceiling: int) -> str:
    """What is wrong with a requested context, for ``FieldInvalid``."""
    return f"{asked_tokens:,} tokens are more than the model's largest context; ask for at most {ceiling:,}."


def _demand(need: Need, *, spare_tokens: int) -> tuple[Reason, ...]:
    """What the request needs. An estimate of 0 is a prompt of which nothing is known yet."""
    unknown = need.prompt_tokens == 0 and not need.prompt_is_exact
    if need.prompt_is_exact or unknown:
        estimate: tuple[Reason, ...] = ()
    else:
        text = f"The prompt was estimated at {_count(need.prompt_tokens, 'token')} from its length."
        estimate = (Reason("estimated", text),)
    if need.context_tokens is not None:
        return estimate
    parts = [] if unknown else [_count(need.prompt_tokens, "prompt token")]
    parts.append(f"{need.reply_tokens:,} for the reply")
    if spare_tokens:
        parts.append(f"{spare_tokens:,} spare")
    if len(parts) == 1:
        return (*estimate, Reason("needs", f"Room for a reply of {_count(need.reply_tokens, 'token')}."))
    total = need.prompt_tokens + need.reply_tokens + spare_tokens
    return (*estimate, Reason("needs", f"{' + '.join(parts)} = {_count(total, 'token')}."))


def _largest(need: Need, ceiling: int) -> Reason:
    lack = _lack(need, ceiling)
    text = f"The model's largest context is {ceiling:,} tokens"
    return Reason("train-context", f"{text}, so {lack}." if lack else f"{text}.")


def _override_applied(need: Need, asked_tokens: int, context_tokens: int) -> Reason:
    text = f"The request sets the context to {_count(asked_tokens, 'token')}"
    if asked_tokens != context_tokens:
        text += f", which is {context_tokens:,} in steps of {CELLS_STEP}"
    lack = _lack(need, context_tokens)
    return Reason("override", f"{text}; {lack}." if lack else f"{text}.")


def _lack(need: Need, context_tokens: int) -> str:
    """What a context has no room for; empty where it has room for all."""
    room = context_tokens - need.prompt_tokens
    if room >= need.reply_tokens:
        return ""
    if room < 1:
        return "the prompt may not fit"
    about = "" if need.prompt_is_exact else "about "
    return f"the reply may be cut after {about}{_count(room, 'token')}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _size(number_bytes: int) -> str:
    for unit, unit_bytes in _UNITS:
        if number_bytes >= unit_bytes:
            return f"{number_bytes / unit_bytes:,.1f} {unit}"
    return _count(number_bytes, "byte")
