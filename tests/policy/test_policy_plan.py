from dataclasses import fields, replace
from math import ceil, log2

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from autotuned.core.chat import ProfileName
from autotuned.core.errors import ContextTooLong, FieldInvalid, WouldSwap
from autotuned.core.learning import Learned
from autotuned.core.memory import Footprint, MemoryView, PressureTier, Resident
from autotuned.core.plan import KvCacheType, PlanAction
from autotuned.policy.footprint import estimate_footprint, prefers_mapping
from autotuned.policy.kv import fits_blocks, has_latent_attention
from autotuned.policy.plan import plan
from autotuned.policy.sizing import BUCKETS, least_reply, reserved_reply
from tests.examples import DEFAULTS, PLENTY, POCKET, QWEN3_8B, counted, short_memory, situation
from tests.strategies import CALM, known_train_contexts, load_shapes, model_facts, needs, situations

calm = situations(memory=st.just(CALM))
calm_first = situations(memory=st.just(CALM), loaded=st.none())
unasked = needs(contexts=st.none())
LONG_POCKET = replace(POCKET, train_context_tokens=131_072)


def planned(need, state):
    """A plan; requests that are refused are another test's business."""
    try:
        return plan(need, state)
    except (ContextTooLong, FieldInvalid, WouldSwap):
        reject()


def after(state, decided):
    """The situation once a plan has been carried out."""
    memory = state.memory
    leaving = [resident for resident in memory.residents if resident.model_id in decided.evictions]
    freed = state.loaded_freed_bytes + sum(resident.freed_bytes for resident in leaving)
    taken = decided.footprint.total_bytes - decided.footprint.host_prompt_cache_bytes
    return replace(
        state,
        loaded=decided.shape,
        loaded_freed_bytes=taken,
        memory=replace(
            memory,
            reading=replace(memory.reading, available_bytes=memory.reading.available_bytes + freed - taken),
            residents=tuple(resident for resident in memory.residents if resident not in leaving),
        ),
    )


@given(needs(), situations())
def test_the_action_is_what_happens(need, state):
    decided = planned(need, state)
    if state.loaded is None:
        assert decided.action is PlanAction.LOAD
    elif decided.action is PlanAction.REUSE:
        assert decided.shape == state.loaded
        assert decided.fit is None
    else:
        assert decided.action is PlanAction.GROW
        assert decided.shape.context_tokens > state.loaded.context_tokens
        assert decided.fit is not None
    assert decided.pressure is state.memory.pressure


@given(needs(), situations(memory=st.just(CALM), loaded=load_shapes()))
def test_a_growth_in_calm_changes_the_context_and_nothing_that_a_saved_state_depends_on(need, state):
    decided = planned(need, state)
    before, shape = state.loaded, decided.shape
    unchanged = {
        "context_tokens": before.context_tokens,
        "batch_tokens": before.batch_tokens,
        "micro_batch_tokens": before.micro_batch_tokens,
        "host_prompt_cache_bytes": before.host_prompt_cache_bytes,
    }
    assert replace(shape, **unchanged) == before
    assert shape.batch_tokens >= before.batch_tokens
    assert shape.micro_batch_tokens >= before.micro_batch_tokens


@given(needs(), needs(), situations(loaded=st.none()))
def test_what_was_planned_is_kept_by_the_next_plan_whatever_memory_gave(first_need, second_need, state):
    first = planned(first_need, state)
    loaded = after(state, first)
    again = plan(first_need, loaded)
    assert again.action is PlanAction.REUSE
    assert again.shape == first.shape
    second = planned(second_need, loaded)
    assert plan(second_need, after(loaded, second)).shape == second.shape


@given(unasked, situations())
def test_the_prompt_is_never_cut(need, state):
    decided = planned(need, state)
    largest = state.facts.train_context_tokens or 4096
    context = decided.shape.context_tokens
    if need.prompt_is_exact:
        assert context > need.prompt_tokens
    assert context >= min(need.prompt_tokens + least_reply(need), largest)


@given(unasked, situations(memory=st.just(CALM)))
def test_in_calm_the_context_holds_prompt_and_reply_or_is_the_largest(need, state):
    context = planned(need, state).shape.context_tokens
    largest = state.facts.train_context_tokens or 4096
    assert context >= min(need.prompt_tokens + reserved_reply(need), largest)


@given(needs(contexts=st.integers(1, 1 << 18)), situations())
def test_a_requested_context_is_honoured_or_refused(need, state):
    assert planned(need, state).shape.context_tokens >= need.context_tokens


@given(unasked, situations(memory=st.just(CALM)), st.sampled_from(PressureTier), st.integers(0, 1 << 20))
def test_more_prompt_never_yields_a_smaller_context(need, state, pressure, more):
    state = replace(state, memory=replace(CALM, pressure=pressure))
    smaller = planned(need, state)
    larger = planned(replace(need, prompt_tokens=need.prompt_tokens + more), state)
    assert smaller.shape.context_tokens <= larger.shape.context_tokens


@given(unasked, calm_first, st.integers(0, 1 << 18))
def test_a_larger_session_never_yields_a_smaller_context(need, state, more):
    smaller = planned(need, state)
    larger = planned(replace(need, session_tokens=need.session_tokens + more), state)
    assert smaller.shape.context_tokens <= larger.shape.context_tokens


@given(needs(), situations(facts=model_facts(known_train_contexts)))
def test_no_new_context_exceeds_the_model(need, state):
    decided = planned(need, state)
    if decided.action is not PlanAction.REUSE:
        assert decided.shape.context_tokens <= state.facts.train_context_tokens


@given(unasked, calm_first)
def test_a_computed_context_in_calm_is_a_bucket_or_the_largest(need, state):
    context = planned(need, state).shape.context_tokens
    assert context in BUCKETS or context == (state.facts.train_context_tokens or 4096)


@given(needs(), situations(loaded=st.none()))
def test_a_first_shape_is_one_that_an_engine_accepts(need, state):
    shape = planned(need, state).shape
    assert 0 < shape.micro_batch_tokens <= shape.batch_tokens <= shape.context_tokens
    assert shape.micro_batch_tokens <= 512
    assert shape.gpu_layers_count == (state.facts.layers_count + 1 if state.defaults.gpu else 0)
    assert shape.slots_count == state.defaults.slots_count
    assert shape.kv_unified is (shape.slots_count > 1)
    assert shape.memory_mapped is (state.defaults.memory_mapped and prefers_mapping(state.facts))
    assert shape.flash_attention or shape.value_cache_type is KvCacheType.F16
    assert shape.key_cache_type is shape.value_cache_type or not has_latent_attention(state.facts)
    for group in state.facts.layer_groups:
        assert fits_blocks(group.key_length, shape.key_cache_type)
        assert fits_blocks(group.value_length, shape.value_cache_type)


@given(needs(), situations())
def test_the_bytes_are_those_of_the_shape(need, state):
    decided = planned(need, state)
    assert decided.footprint == estimate_footprint(state.facts, decided.shape, state.learned)


@given(needs(), situations(facts=model_facts(known_train_contexts), memory=st.just(CALM)))
def test_only_what_can_never_fit_is_refused_in_calm(need, state):
    largest = state.facts.train_context_tokens
    asked_too_much = need.context_tokens is not None and need.context_tokens > largest
    room = largest if need.context_tokens is None else need.context_tokens
    prompt_too_long = need.prompt_is_exact and need.prompt_tokens + 1 > room
    if asked_too_much:
        with pytest.raises(FieldInvalid) as refused:
            plan(need, state)
        assert refused.value.field == "context_tokens"
    elif prompt_too_long:
        with pytest.raises(ContextTooLong) as too_long:
            plan(need, state)
        assert (too_long.value.prompt_tokens, too_long.value.context_tokens) == (need.prompt_tokens, room)
    else:
        plan(need, state)


@given(needs(contexts=st.integers(4097, 1 << 18)), situations(facts=model_facts(st.just(0))))
def test_a_model_that_tells_no_limit_takes_the_requested_context(need, state):
    assert planned(need, state).shape.context_tokens >= need.context_tokens


@given(needs(), situations())
def test_reasons_are_lines_that_end_with_a_full_stop(need, state):
    reasons = planned(need, state).reasons
    assert reasons
    assert len({reason.code for reason in reasons}) == len(reasons)
    for reason in reasons:
        assert reason.code == reason.code.lower().replace(" ", "-")
        assert reason.text.endswith(".")
        assert "\n" not in reason.text
        assert reason.text[0].isupper() or reason.text[0].isdigit()


@given(unasked, calm_first, st.lists(st.integers(1, 4000), min_size=1, max_size=60))
def test_a_conversation_grows_at_most_once_per_doubling(need, state, turns):
    first = planned(need, state)
    shape, growths = first.shape, 0
    prompt_tokens = need.prompt_tokens
    for tokens in turns:
        prompt_tokens += tokens
        decided = planned(replace(need, prompt_tokens=prompt_tokens), replace(state, loaded=shape))
        growths += decided.action is PlanAction.GROW
        shape = decided.shape
    # The step to the model's largest context may be a short one.
    assert growths <= ceil(log2(shape.context_tokens / first.shape.context_tokens))


def test_a_conversation_that_grows_token_by_token_is_loaded_a_few_times():
    need = counted(1)
    shape = plan(need, situation(LONG_POCKET)).shape
    contexts = [shape.context_tokens]
    for prompt_tokens in range(2, 100_000, 7):
        shape = plan(replace(need, prompt_tokens=prompt_tokens), situation(LONG_POCKET, shape)).shape
        if shape.context_tokens != contexts[-1]:
            contexts.append(shape.context_tokens)
    assert contexts == [1536, 3072, 6144, 12_288, 32_768, 65_536, 131_072]


def test_a_reply_that_the_model_cannot_hold_is_no_reason_to_load_again():
    facts = replace(POCKET, train_context_tokens=4096)
    full = plan(counted(3500), situation(facts))
    assert full.shape.context_tokens == 4096
    assert plan(counted(4095), situation(facts, full.shape)).action is PlanAction.REUSE


def test_a_smaller_request_keeps_the_larger_context():
    grown = plan(counted(5000), situation()).shape
    for need in (counted(1), counted(1, context_tokens=512)):
        assert plan(need, situation(POCKET, grown)).shape is grown


def test_a_requested_context_is_taken_in_the_steps_of_the_engine():
    assert plan(counted(1, context_tokens=1000), situation()).shape.context_tokens == 1024
    odd = replace(POCKET, train_context_tokens=1010)
    assert plan(counted(1, context_tokens=1000), situation(odd)).shape.context_tokens == 1010


def test_every_part_of_the_shape_is_decided():
    shape = plan(counted(15), situation()).shape
    assert {field.name: getattr(shape, field.name) for field in fields(shape)} == {
        "context_tokens": 1536,
        "slots_count": 1,
        "kv_unified": False,
        "key_cache_type": KvCacheType.F16,
        "value_cache_type": KvCacheType.F16,
        "batch_tokens": 512,
        "micro_batch_tokens": 512,
        "flash_attention": True,
        "gpu_layers_count": 0,
        "host_prompt_cache_bytes": shape.host_prompt_cache_bytes,
        "memory_mapped": True,
        "assumed": (),
    }
    assert 4 << 30 < shape.host_prompt_cache_bytes < 5 << 30


def test_a_kept_shape_is_told_with_its_measured_bytes_and_nothing_is_estimated(monkeypatch):
    shape = plan(counted(15), situation()).shape
    measured = Footprint(
        weights_bytes=1,
        repacked_weights_bytes=2,
        kv_cache_bytes=3,
        compute_bytes=4,
        process_bytes=5,
    )
    monkeypatch.setattr("autotuned.policy.plan.estimate_footprint", None)
    monkeypatch.setattr("autotuned.policy.draft.estimate_footprint", None)
    kept = plan(counted(15), replace(situation(POCKET, shape), loaded_footprint=measured))
    assert kept.footprint is measured
    assert (kept.available_before_bytes, kept.available_after_bytes) == (0, 0)


def test_a_first_load_with_plenty_of_memory_estimates_a_few_shapes_only(monkeypatch):
    estimated = []

    def counting(facts, shape, learned):
        estimated.append(shape)
        return estimate_footprint(facts, shape, learned)

    monkeypatch.setattr("autotuned.policy.draft.estimate_footprint", counting)
    plan(counted(15), situation(QWEN3_8B))
    assert len(estimated) == 2


def test_the_available_bytes_before_and_after():
    decided = plan(counted(15), situation())
    assert decided.available_before_bytes == PLENTY.available_bytes
    assert decided.available_after_bytes == PLENTY.available_bytes - decided.fit.required_bytes


def test_a_first_load_is_as_large_as_requests_of_this_model_usually_need():
    usual = Learned(usual_context_tokens=5000)
    assert plan(counted(15), situation(learned=usual)).shape.context_tokens == 6144
    fast = replace(counted(15, reply_tokens=100), profile=ProfileName.FAST)
    assert plan(fast, situation(learned=usual)).shape.context_tokens == 6144
    loaded = plan(counted(15), situation()).shape
    assert plan(counted(15), situation(POCKET, loaded, learned=usual)).action is PlanAction.REUSE


def test_a_first_load_and_a_growth_hold_what_the_session_is_expected_to_come_to():
    agent = replace(counted(15), session_tokens=7000)
    assert plan(agent, situation()).shape.context_tokens == 8192
    loaded = plan(counted(15), situation()).shape
    assert plan(agent, situation(POCKET, loaded)).action is PlanAction.REUSE
    longer = replace(agent, prompt_tokens=1000)
    assert plan(longer, situation(POCKET, loaded)).shape.context_tokens == 8192


def test_an_expectation_takes_no_memory_that_is_not_safe_and_brings_no_pressure_about():
    base_bytes = plan(counted(15), situation(QWEN3_8B)).fit.required_bytes
    total_bytes = 16 << 30
    memory = MemoryView(
        reading=short_memory(base_bytes + (4 << 30), total_bytes=total_bytes), pressure=PressureTier.NORMAL
    )
    agent = replace(counted(15), session_tokens=30_000, profile=ProfileName.QUALITY)
    decided = plan(agent, situation(QWEN3_8B, memory=memory))
    assert decided.reduction_level == 0
    assert 1536 < decided.shape.context_tokens < 30_000
    assert decided.shape.context_tokens <= decided.fit.safe_context_tokens
    assert decided.available_after_bytes >= total_bytes // 5


def test_nobody_leaves_memory_for_an_expectation():
    base_bytes = plan(counted(15), situation(QWEN3_8B)).fit.required_bytes
    idle = Resident(model_id="idle", freed_bytes=8 << 30, is_busy=False, last_used_at=0.0)
    memory = MemoryView(
        reading=short_memory(base_bytes + (2 << 30)), pressure=PressureTier.NORMAL, residents=(idle,)
    )
    agent = replace(counted(15), session_tokens=30_000, profile=ProfileName.QUALITY)
    decided = plan(agent, situation(QWEN3_8B, memory=memory))
    assert (decided.shape.context_tokens, decided.evictions) == (1536, ())
    assert plan(replace(agent, prompt_tokens=25_000), situation(QWEN3_8B, memory=memory)).evictions == (
        "idle",
    )


def test_slots_share_a_context_with_room_for_a_small_request_in_each():
    four = replace(DEFAULTS, slots_count=4)
    shape = plan(counted(15), situation(defaults=four)).shape
    assert (shape.kv_unified, shape.context_tokens) == (True, 3072)
    usual = Learned(usual_context_tokens=1800)
    assert plan(counted(15), situation(defaults=four, learned=usual)).shape.context_tokens == 8192


@pytest.mark.parametrize(
    ("profile", "configured", "types"),
    [
        (ProfileName.FAST, "auto", KvCacheType.Q8_0),
        (ProfileName.BALANCED, "auto", KvCacheType.F16),
        (ProfileName.QUALITY, "auto", KvCacheType.F16),
        (ProfileName.FAST, "f16", KvCacheType.F16),
        (ProfileName.QUALITY, "q8_0", KvCacheType.Q8_0),
    ],
)
def test_configuration_then_profile_decide_the_types_of_a_first_load(profile, configured, types):
    need = replace(counted(15), profile=profile)
    shape = plan(need, situation(defaults=replace(DEFAULTS, kv_cache=configured))).shape
    assert (shape.key_cache_type, shape.value_cache_type) == (types, types)


@pytest.mark.parametrize("first", list(ProfileName))
@pytest.mark.parametrize("second", list(ProfileName))
def test_the_types_do_not_flip_with_each_client(first, second):
    loaded = plan(replace(counted(15), profile=first), situation()).shape
    grown = plan(replace(counted(5000), profile=second), situation(POCKET, loaded))
    assert grown.action is PlanAction.GROW
    assert grown.shape.key_cache_type is loaded.key_cache_type


@pytest.mark.parametrize(("configured", "types"), [("auto", KvCacheType.Q8_0), ("f16", KvCacheType.F16)])
def test_high_pressure_quantises_a_cache_that_nobody_configured(configured, types):
    defaults = replace(DEFAULTS, kv_cache=configured)
    high = MemoryView(reading=PLENTY, pressure=PressureTier.HIGH)
    assert plan(counted(15), situation(defaults=defaults, memory=high)).shape.key_cache_type is types
    loaded = plan(counted(15), situation(defaults=defaults)).shape
    grown = plan(counted(5000), situation(POCKET, loaded, defaults=defaults, memory=high))
    assert grown.shape.key_cache_type is types


@given(unasked, situations())
def test_without_reduction_and_pressure_the_types_are_the_loaded_or_the_wanted_ones(need, state):
    state = replace(state, memory=replace(state.memory, pressure=PressureTier.ELEVATED))
    decided = planned(need, state)
    if decided.reduction_level:
        reject()
    shape, loaded = decided.shape, state.loaded
    if loaded is not None:
        assert (shape.key_cache_type, shape.value_cache_type) == (
            loaded.key_cache_type,
            loaded.value_cache_type,
        )
    elif state.defaults.kv_cache == "f16":
        assert shape.key_cache_type is KvCacheType.F16


@pytest.mark.parametrize(
    ("pressure", "context"),
    [
        (PressureTier.NORMAL, 6144),
        (PressureTier.ELEVATED, 4096),
        (PressureTier.HIGH, 4096),
        (PressureTier.CRITICAL, 4096),
    ],
)
def test_pressure_takes_headroom_and_never_the_prompt(pressure, context):
    memory = MemoryView(reading=PLENTY, pressure=pressure)
    assert plan(counted(3000), situation(memory=memory)).shape.context_tokens == context


def test_under_pressure_a_loaded_context_with_room_for_a_small_reply_stays():
    critical = MemoryView(reading=PLENTY, pressure=PressureTier.CRITICAL)
    loaded = plan(counted(15), situation()).shape
    kept = plan(counted(600), situation(POCKET, loaded, memory=critical))
    assert kept.action is PlanAction.REUSE
    assert plan(counted(1400), situation(POCKET, loaded, memory=critical)).action is PlanAction.GROW
