from dataclasses import fields, replace
from math import log2

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from autotuned.core.errors import ContextTooLong, FieldInvalid
from autotuned.core.plan import KvCacheType, PlanAction
from autotuned.policy.kv import fits_blocks, kv_cache_bytes
from autotuned.policy.plan import plan
from autotuned.policy.sizing import BUCKETS
from tests.examples import DEFAULTS, POCKET, counted
from tests.strategies import known_train_contexts, load_shapes, model_facts, needs, shape_defaults

maybe_loaded = st.one_of(st.none(), load_shapes())
unasked = needs(contexts=st.none())


def planned(facts, need, loaded, defaults):
    """A plan; requests that are refused are another test's business."""
    try:
        return plan(facts, need, loaded, defaults)
    except (ContextTooLong, FieldInvalid):
        reject()


@given(model_facts(), needs(), maybe_loaded, shape_defaults())
def test_the_action_is_what_happens(facts, need, loaded, defaults):
    decided = planned(facts, need, loaded, defaults)
    if loaded is None:
        assert decided.action is PlanAction.LOAD
    elif decided.action is PlanAction.REUSE:
        assert decided.shape == loaded
    else:
        assert decided.action is PlanAction.GROW
        assert decided.shape.context_tokens > loaded.context_tokens
        assert replace(decided.shape, context_tokens=loaded.context_tokens) == loaded


@given(model_facts(), needs(), maybe_loaded, shape_defaults())
def test_what_was_planned_is_kept_by_the_next_plan(facts, need, loaded, defaults):
    decided = planned(facts, need, loaded, defaults)
    again = plan(facts, need, decided.shape, defaults)
    assert again.action is PlanAction.REUSE
    assert again.shape == decided.shape
    assert again.kv_cache_bytes == decided.kv_cache_bytes


@given(model_facts(), unasked, maybe_loaded, shape_defaults(), st.integers(0, 1 << 20))
def test_more_prompt_never_yields_a_smaller_context(facts, need, loaded, defaults, more):
    smaller = planned(facts, need, loaded, defaults)
    larger = planned(facts, replace(need, prompt_tokens=need.prompt_tokens + more), loaded, defaults)
    assert smaller.shape.context_tokens <= larger.shape.context_tokens


@given(model_facts(), needs(), maybe_loaded, shape_defaults())
def test_the_context_holds_what_is_asked_or_is_the_largest(facts, need, loaded, defaults):
    context = planned(facts, need, loaded, defaults).shape.context_tokens
    if need.context_tokens is not None:
        assert context >= need.context_tokens
    elif context < need.prompt_tokens + need.reply_tokens:
        assert context >= (facts.train_context_tokens or 4096)
    if need.prompt_is_exact and need.context_tokens is None:
        assert context > need.prompt_tokens or loaded is not None


@given(model_facts(known_train_contexts), needs(), maybe_loaded, shape_defaults())
def test_no_new_context_exceeds_the_model(facts, need, loaded, defaults):
    decided = planned(facts, need, loaded, defaults)
    if decided.action is not PlanAction.REUSE:
        assert decided.shape.context_tokens <= facts.train_context_tokens


@given(model_facts(), unasked, shape_defaults())
def test_a_computed_context_is_a_bucket_or_the_largest(facts, need, defaults):
    context = planned(facts, need, None, defaults).shape.context_tokens
    assert context in BUCKETS or context == (facts.train_context_tokens or 4096)


@given(model_facts(), needs(), shape_defaults())
def test_a_first_shape_is_one_that_an_engine_accepts(facts, need, defaults):
    shape = planned(facts, need, None, defaults).shape
    assert shape.micro_batch_tokens <= shape.batch_tokens <= shape.context_tokens
    assert shape.gpu_layers_count == facts.layers_count + 1
    assert shape.slots_count == defaults.slots_count
    assert shape.flash_attention or shape.value_cache_type is KvCacheType.F16
    assert fits_blocks(facts.key_length, shape.key_cache_type)
    assert fits_blocks(facts.value_length, shape.value_cache_type)


@given(model_facts(), needs(), maybe_loaded, shape_defaults())
def test_the_bytes_are_those_of_the_shape(facts, need, loaded, defaults):
    decided = planned(facts, need, loaded, defaults)
    shape = decided.shape
    assert decided.weights_bytes == facts.weights_bytes
    assert decided.kv_cache_bytes == kv_cache_bytes(
        facts,
        context_tokens=shape.context_tokens,
        slots_count=shape.slots_count,
        key_cache_type=shape.key_cache_type,
        value_cache_type=shape.value_cache_type,
        flash_attention=shape.flash_attention,
    )


@given(model_facts(known_train_contexts), needs(), maybe_loaded, shape_defaults())
def test_only_what_can_never_fit_is_refused(facts, need, loaded, defaults):
    largest = facts.train_context_tokens
    asked_too_much = need.context_tokens is not None and need.context_tokens > largest
    room = largest if need.context_tokens is None else need.context_tokens
    prompt_too_long = need.prompt_is_exact and need.prompt_tokens + 1 > room
    if asked_too_much:
        with pytest.raises(FieldInvalid) as refused:
            plan(facts, need, loaded, defaults)
        assert refused.value.field == "context_tokens"
    elif prompt_too_long:
        with pytest.raises(ContextTooLong) as too_long:
            plan(facts, need, loaded, defaults)
        assert (too_long.value.prompt_tokens, too_long.value.context_tokens) == (need.prompt_tokens, room)
    else:
        plan(facts, need, loaded, defaults)


@given(model_facts(st.just(0)), needs(contexts=st.integers(4097, 1 << 18)), shape_defaults())
def test_a_model_that_tells_no_limit_takes_the_requested_context(facts, need, defaults):
    assert planned(facts, need, None, defaults).shape.context_tokens >= need.context_tokens


@given(model_facts(), needs(), maybe_loaded, shape_defaults())
def test_reasons_are_lines_that_end_with_a_full_stop(facts, need, loaded, defaults):
    reasons = planned(facts, need, loaded, defaults).reasons
    assert reasons
    assert len({reason.code for reason in reasons}) == len(reasons)
    for reason in reasons:
        assert reason.code == reason.code.lower().replace(" ", "-")
        assert reason.text.endswith(".")
        assert "\n" not in reason.text
        assert reason.text[0].isupper() or reason.text[0].isdigit()


@given(
    model_facts(known_train_contexts),
    unasked,
    shape_defaults(),
    st.lists(st.integers(1, 4000), min_size=1, max_size=60),
)
def test_a_conversation_grows_about_twice_per_doubling(facts, need, defaults, turns):
    first = planned(facts, need, None, defaults)
    shape, growths = first.shape, 0
    prompt_tokens = need.prompt_tokens
    for tokens in turns:
        prompt_tokens += tokens
        decided = planned(facts, replace(need, prompt_tokens=prompt_tokens), shape, defaults)
        growths += decided.action is PlanAction.GROW
        shape = decided.shape
    # Two buckets per doubling; the first step and the one to the largest context may be short ones.
    assert growths <= 2 * log2(shape.context_tokens / first.shape.context_tokens) + 2


def test_a_conversation_that_grows_token_by_token_is_loaded_a_few_times():
    facts, need, defaults = replace(POCKET, train_context_tokens=131_072), counted(1), DEFAULTS
    shape = plan(facts, need, None, defaults).shape
    contexts = [shape.context_tokens]
    for prompt_tokens in range(2, 100_000):
        shape = plan(facts, replace(need, prompt_tokens=prompt_tokens), shape, defaults).shape
        if shape.context_tokens != contexts[-1]:
            contexts.append(shape.context_tokens)
    assert contexts == [
        1536,
        2048,
        3072,
        4096,
        6144,
        8192,
        12_288,
        16_384,
        32_768,
        49_152,
        65_536,
        98_304,
        131_072,
    ]


def test_a_reply_that_the_model_cannot_hold_is_no_reason_to_load_again():
    facts, defaults = replace(POCKET, train_context_tokens=4096), DEFAULTS
    full = plan(facts, counted(3500), None, defaults)
    assert full.shape.context_tokens == 4096
    assert plan(facts, counted(4095), full.shape, defaults).action is PlanAction.REUSE


def test_a_smaller_request_keeps_the_larger_context():
    facts, defaults = POCKET, DEFAULTS
    grown = plan(facts, counted(5000), None, defaults).shape
    for need in (counted(1), counted(1, context_tokens=512)):
        assert plan(facts, need, grown, defaults).shape is grown


def test_a_requested_context_is_taken_in_the_steps_of_the_engine():
    facts, defaults = POCKET, DEFAULTS
    assert plan(facts, counted(1, context_tokens=1000), None, defaults).shape.context_tokens == 1024
    odd = replace(facts, train_context_tokens=1010)
    assert plan(odd, counted(1, context_tokens=1000), None, defaults).shape.context_tokens == 1010


def test_every_part_of_the_shape_is_decided():
    facts, defaults = POCKET, DEFAULTS
    shape = plan(facts, counted(15), None, defaults).shape
    assert {field.name: getattr(shape, field.name) for field in fields(shape)} == {
        "context_tokens": 1536,
        "slots_count": 1,
        "key_cache_type": KvCacheType.F16,
        "value_cache_type": KvCacheType.F16,
        "batch_tokens": 512,
        "micro_batch_tokens": 256,
        "flash_attention": True,
        "gpu_layers_count": 5,
    }
