"""The sentences in which a plan explains itself: the request, the context, the KV types, the batches.

``plan`` and its parts decide and call; people read the result in ``autotunectl ps`` and after an
answer, and programs switch on the codes. What memory decides is in ``reasons_memory``.
Invariant: each text is one line of plain words with the numbers that decided, and ends with a full stop.
"""

from __future__ import annotations

from autotuned.core.chat import ProfileName
from autotuned.core.memory import PressureTier
from autotuned.core.model import ModelFacts
from autotuned.core.plan import LoadShape, Need, Reason
from autotuned.policy.kv import CELLS_STEP, QUANTISED_BLOCK_ELEMENTS
from autotuned.policy.profiles import PROFILES
from autotuned.policy.sizing import ASSUMED_TRAIN_CONTEXT_TOKENS, SPARE_TOKENS, reserved_reply
from autotuned.policy.wording import count


def kept(need: Need, context_tokens: int, ceiling: int) -> tuple[Reason, ...]:
    """Why a loaded context stays as it is."""
    lack = _lack(need, context_tokens)
    if not lack:
        text = f"The loaded context of {context_tokens:,} tokens holds it."
    elif context_tokens >= ceiling:
        text = f"The loaded context of {context_tokens:,} tokens is the model's largest, so {lack}."
    else:
        text = f"The loaded context of {context_tokens:,} tokens is kept, so {lack}."
    return (*_estimate(need), *_demand(need, need.reply_tokens, 0), Reason("kept", text))


def sized(
    need: Need, others_tokens: int, context_tokens: int, ceiling: int, slots_count: int
) -> tuple[Reason, ...]:
    """Why a new context has its size. ``others_tokens`` are for the slots that share it."""
    reply = reserved_reply(need)
    why = (*_estimate(need), *_capped_reply(need, reply), *_demand(need, reply, SPARE_TOKENS))
    total = need.prompt_tokens + reply + SPARE_TOKENS + others_tokens
    if others_tokens:
        each = others_tokens // (slots_count - 1)
        text = f"{count(slots_count, 'slot')} share the context: {each:,} for each other one make {total:,}."
        why += (Reason("slots", text),)
    if context_tokens == ceiling:
        return (*why, _largest(need, ceiling))
    if context_tokens == total:
        return (*why, Reason("bucket", f"{total:,} is a bucket."))
    return (*why, Reason("bucket", f"{total:,} snaps up to the bucket {context_tokens:,}."))


def requested(need: Need, context_tokens: int) -> tuple[Reason, ...]:
    """Why a context has the size that the request asks for."""
    asked = need.context_tokens or 0
    text = f"The request sets the context to {count(asked, 'token')}"
    if asked != context_tokens:
        text += f", which is {context_tokens:,} in steps of {CELLS_STEP}"
    lack = _lack(need, context_tokens)
    return (*_estimate(need), Reason("override", f"{text}; {lack}." if lack else f"{text}."))


def grown(before_tokens: int, after_tokens: int) -> Reason:
    """Why a loaded model is loaded again."""
    text = f"The loaded context of {before_tokens:,} tokens is too small, so it grows to {after_tokens:,}."
    return Reason("grown", text)


def doubled(context_tokens: int, *, unsafe: bool) -> Reason:
    """Why a growth is larger than its request needs."""
    if unsafe:
        text = f"A growth doubles the context where memory allows; it allows {context_tokens:,} tokens."
    else:
        text = f"A growth at least doubles the context, to {context_tokens:,} tokens, so that there are few."
    return Reason("doubled", text)


def session(need: Need, context_tokens: int, *, unsafe: bool) -> Reason:
    """Why a context is as large as the session is expected to become."""
    text = f"The session is expected to come to {count(need.session_tokens, 'token')}"
    return _expected("session", text, context_tokens, unsafe=unsafe)


def usual(usual_tokens: int, context_tokens: int, *, unsafe: bool) -> Reason:
    """Why a first context is as large as this model's requests usually need."""
    text = f"Requests of this model usually come to {count(usual_tokens, 'token')}"
    return _expected("usual", text, context_tokens, unsafe=unsafe)


def unknown_train_context(facts: ModelFacts) -> tuple[Reason, ...]:
    """That the model does not tell its largest context, where it does not."""
    return (UNKNOWN_TRAIN_CONTEXT,) if facts.train_context_tokens <= 0 else ()


UNKNOWN_TRAIN_CONTEXT = Reason(
    "train-context-unknown",
    f"The model does not tell its largest context; {ASSUMED_TRAIN_CONTEXT_TOKENS:,} tokens are assumed "
    "unless a request sets more.",
)
NO_FLASH_ATTENTION = Reason(
    "value-cache", "The value cache is F16: a quantised one needs flash attention, which is off."
)
LATENT_ATTENTION = Reason(
    "latent-attention", "Keys and values are of one type: in this model the keys stand for both."
)
CONFIGURED_CACHE = Reason("cache-type", "The KV cache is Q8_0, as configured.")


def profile_cache(profile: ProfileName) -> Reason:
    """Why a first load has a quantised cache."""
    return Reason("cache-type", f"The KV cache is Q8_0, as the {profile.value} profile has it.")


def pressed_cache(pressure: PressureTier) -> Reason:
    """Why a cache that would be F16 is quantised."""
    return Reason("cache-type", f"The KV cache is Q8_0, since memory pressure is {pressure.name.lower()}.")


def odd_heads(cache_name: str, head_length: int) -> Reason:
    """Why the key or value cache is not quantised."""
    text = (
        f"The {cache_name} cache is F16: heads of {count(head_length, 'element')} "
        f"do not divide into blocks of {QUANTISED_BLOCK_ELEMENTS}."
    )
    return Reason(f"{cache_name}-cache", text)


def batches(shape: LoadShape, tokens_per_second: float, *, measured: bool) -> Reason:
    """How long one step of prefill lasts, which is how long a cancel may wait."""
    milliseconds = round(1000 * shape.batch_tokens / tokens_per_second)
    speed = f"{tokens_per_second:,.0f} tokens a second{'' if measured else ', as is estimated'}"
    text = f"Prefill goes in batches of {shape.batch_tokens:,} tokens: {milliseconds:,} ms each at {speed}."
    return Reason("batch", text)


def context_above(asked_tokens: int, ceiling: int) -> str:
    """What is wrong with a requested context, for ``FieldInvalid``."""
    return f"{asked_tokens:,} tokens are more than the model's largest context; ask for at most {ceiling:,}."


def _expected(code: str, text: str, context_tokens: int, *, unsafe: bool) -> Reason:
    so = f"and memory allows {context_tokens:,}" if unsafe else f"so the context is {context_tokens:,}"
    return Reason(code, f"{text}, {so}.")


def _estimate(need: Need) -> tuple[Reason, ...]:
    if need.prompt_is_exact or need.prompt_is_unknown:
        return ()
    text = f"The prompt was estimated at {count(need.prompt_tokens, 'token')} from its length."
    return (Reason("estimated", text),)


def _capped_reply(need: Need, reply_tokens: int) -> tuple[Reason, ...]:
    if reply_tokens == need.reply_tokens:
        return ()
    cap = PROFILES[need.profile].context_tokens
    text = (
        f"The {need.profile.value} profile provides for {cap:,} tokens, "
        f"so {reply_tokens:,} of {need.reply_tokens:,} are reserved for the reply."
    )
    return (Reason("profile", text),)


def _demand(need: Need, reply_tokens: int, spare_tokens: int) -> tuple[Reason, ...]:
    """What the request needs; nothing where it says so itself."""
    if need.context_tokens is not None:
        return ()
    parts = [] if need.prompt_is_unknown else [count(need.prompt_tokens, "prompt token")]
    parts.append(f"{reply_tokens:,} for the reply")
    if spare_tokens:
        parts.append(f"{spare_tokens:,} spare")
    if len(parts) == 1:
        return (Reason("needs", f"Room for a reply of {count(reply_tokens, 'token')}."),)
    total = need.prompt_tokens + reply_tokens + spare_tokens
    return (Reason("needs", f"{' + '.join(parts)} = {count(total, 'token')}."),)


def _largest(need: Need, ceiling: int) -> Reason:
    lack = _lack(need, ceiling)
    text = f"The model's largest context is {ceiling:,} tokens"
    return Reason("train-context", f"{text}, so {lack}." if lack else f"{text}.")


def _lack(need: Need, context_tokens: int) -> str:
    """What a context has no room for; empty where it has room for all."""
    room = context_tokens - need.prompt_tokens
    if room >= need.reply_tokens:
        return ""
    if room < 1:
        return "the prompt may not fit"
    about = "" if need.prompt_is_exact else "about "
    return f"the reply may be cut after {about}{count(room, 'token')}"
