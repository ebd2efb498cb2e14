import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.chat import ProfileName, Sampling
from autotuned.core.plan import KvCacheType
from autotuned.policy.profiles import PROFILES, Profile, reply_room, with_defaults


def test_every_name_has_a_profile_of_that_name():
    assert {name: profile.name for name, profile in PROFILES.items()} == {name: name for name in ProfileName}


@pytest.mark.parametrize(
    ("name", "temperature", "reply_tokens", "context_tokens", "kv_cache_type"),
    [
        (ProfileName.FAST, 0.1, 512, 2048, KvCacheType.Q8_0),
        (ProfileName.BALANCED, 0.7, 1024, 8192, KvCacheType.F16),
        (ProfileName.QUALITY, 0.8, 4096, 32_768, KvCacheType.F16),
    ],
)
def test_published_values(name, temperature, reply_tokens, context_tokens, kv_cache_type):
    assert PROFILES[name] == Profile(
        name=name,
        temperature=temperature,
        reply_tokens=reply_tokens,
        context_tokens=context_tokens,
        kv_cache_type=kv_cache_type,
    )


def test_profiles_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        PROFILES[ProfileName.FAST] = PROFILES[ProfileName.QUALITY]


def test_an_open_temperature_is_filled_and_nothing_else_is_touched():
    filled = with_defaults(Sampling(top_k=7, seed=3), PROFILES[ProfileName.QUALITY])
    assert filled == Sampling(temperature=0.8, top_k=7, seed=3)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 2.0])
def test_a_temperature_of_the_client_is_kept_also_when_it_is_zero(temperature):
    asked = Sampling(temperature=temperature)
    assert with_defaults(asked, PROFILES[ProfileName.BALANCED]) == asked


@given(st.integers(1, 1 << 40), st.sampled_from(ProfileName))
def test_the_room_for_a_reply_is_within_both_limits(limit, name):
    profile = PROFILES[name]
    room = reply_room(limit, profile)
    assert room in (limit, profile.reply_tokens)
    assert room <= limit
    assert room <= profile.reply_tokens


def test_without_a_limit_the_profile_decides():
    assert reply_room(None, PROFILES[ProfileName.FAST]) == 512
