"""The named sets of defaults: what a request takes where it is silent.

``services`` fills requests and needs from them; ``plan`` takes their limits on what is reserved.
Invariant: what a client set is never overridden and its prompt never cut, except that no more room is
reserved for a reply, and beyond the request, than its profile allows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from autotuned.core.chat import ProfileName, Sampling
from autotuned.core.engine import ALL_SAMPLING
from autotuned.core.plan import KvCacheType


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Defaults under one name.

    ``reply_tokens`` is the most that sizing reserves for a reply, ``context_tokens`` the context up to
    which it reserves anything that the prompt does not need; ``kv_cache_type`` is that of a first load.
    """

    name: ProfileName
    temperature: float
    reply_tokens: int
    context_tokens: int
    kv_cache_type: KvCacheType


PROFILES: Mapping[ProfileName, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                name=ProfileName.FAST,
                temperature=0.1,
                reply_tokens=512,
                context_tokens=2048,
                kv_cache_type=KvCacheType.Q8_0,
            ),
            Profile(
                name=ProfileName.BALANCED,
                temperature=0.7,
                reply_tokens=1024,
                context_tokens=8192,
                kv_cache_type=KvCacheType.F16,
            ),
            Profile(
                name=ProfileName.QUALITY,
                temperature=0.8,
                reply_tokens=4096,
                context_tokens=32_768,
                kv_cache_type=KvCacheType.F16,
            ),
        )
    }
)


def with_defaults(sampling: Sampling, profile: Profile, honoured: Collection[str] = ALL_SAMPLING) -> Sampling:
    """The client's sampling, with the profile's values where it left open what the engine honours."""
    if sampling.temperature is not None or "temperature" not in honoured:
        return sampling
    return replace(sampling, temperature=profile.temperature)


def reply_room(max_reply_tokens: int | None, profile: Profile) -> int:
    """Tokens that sizing reserves for the reply: the client's limit, at most the profile's."""
    if max_reply_tokens is None:
        return profile.reply_tokens
    return min(max_reply_tokens, profile.reply_tokens)
