"""What an engine does not honour is not planned, and is told to be assumed."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from autotuned.core.engine import Capabilities, Knobs, KnobScope
from autotuned.core.errors import ContextTooLong, FieldInvalid
from autotuned.core.plan import KvCacheType, LoadShape, Need, PlanAction
from autotuned.policy.knobs import ASSUMED_BATCH_TOKENS, assumed_fields, engine_defaults
from autotuned.policy.plan import plan
from autotuned.policy.remote import UNKNOWN_CONTEXT_TOKENS, plan_remote
from tests.examples import DEFAULTS, POCKET, situation

ALL = Knobs(**{field.name: KnobScope.LOAD for field in fields(Knobs)})
NEED = Need(prompt_tokens=100, prompt_is_exact=True, reply_tokens=100)


def capabilities(knobs, **changes):
    able = {field.name: True for field in fields(Capabilities) if field.type == "bool"}
    return Capabilities(**able | {"knobs": knobs} | changes)


def planned(knobs, **changes):
    defaults = engine_defaults(DEFAULTS, capabilities(knobs, **changes))
    return plan(NEED, replace(situation(POCKET), defaults=defaults)).shape


def test_an_engine_that_honours_all_is_planned_as_configured():
    defaults = engine_defaults(
        DEFAULTS, capabilities(ALL, slots_count=DEFAULTS.slots_count, has_gpu=DEFAULTS.gpu, batch_tokens=512)
    )
    assert defaults == DEFAULTS
    assert planned(ALL).assumed == ()


def test_a_build_with_a_gpu_is_offered_all_layers():
    assert planned(ALL, has_gpu=True).gpu_layers_count == POCKET.layers_count + 1
    assert planned(ALL, has_gpu=False).gpu_layers_count == (POCKET.layers_count + 1 if DEFAULTS.gpu else 0)


def test_only_what_can_be_set_is_open():
    knobs = Knobs(context_tokens=KnobScope.LOAD, keep_alive=KnobScope.REQUEST)
    shape = planned(knobs, slots_count=2, server_cache_type=KvCacheType.Q8_0)
    assert shape.key_cache_type is shape.value_cache_type is KvCacheType.Q8_0
    assert shape.slots_count == 2
    assert shape.host_prompt_cache_bytes == 0
    assert shape.batch_tokens == min(ASSUMED_BATCH_TOKENS, shape.context_tokens)
    assert set(shape.assumed) == {
        "slots_count",
        "key_cache_type",
        "value_cache_type",
        "flash_attention",
        "batch_tokens",
        "micro_batch_tokens",
        "gpu_layers_count",
        "host_prompt_cache_bytes",
        "memory_mapped",
    }
    assert "context_tokens" not in shape.assumed


def test_every_knob_of_a_shape_has_its_fields():
    names = {field.name for field in fields(LoadShape)}
    assert set(assumed_fields(Knobs())) <= names
    for field in fields(Knobs):
        if field.name != "keep_alive":
            assert assumed_fields(replace(ALL, **{field.name: KnobScope.NONE}))
            assert not assumed_fields(replace(ALL, **{field.name: KnobScope.SERVER}))


def remote(need=NEED, context_tokens=0, loaded=None):
    facts = replace(POCKET, train_context_tokens=context_tokens)
    return plan_remote(need, facts, loaded, slots_count=4, where="http://gpu:8000/v1")


def test_a_model_elsewhere_takes_nothing_here_and_says_where_it_is():
    plan = remote()
    assert plan.action is PlanAction.LOAD
    assert plan.footprint.total_bytes == 0
    assert plan.fit is None
    assert [reason.text for reason in plan.reasons] == [
        "It runs at http://gpu:8000/v1, which decides its shape: no memory is taken here."
    ]
    assert remote(loaded=plan.shape).action is PlanAction.REUSE


def test_a_server_that_tells_no_context_decides_for_itself():
    shape = remote(replace(NEED, prompt_tokens=5_000_000)).shape
    assert shape.context_tokens == UNKNOWN_CONTEXT_TOKENS
    assert "context_tokens" in shape.assumed
    assert "context_tokens" not in remote(context_tokens=4096).shape.assumed


def test_a_context_that_the_server_tells_is_kept():
    with pytest.raises(ContextTooLong):
        remote(replace(NEED, prompt_tokens=4096), context_tokens=4096)
    with pytest.raises(FieldInvalid, match="context_tokens"):
        remote(replace(NEED, context_tokens=8192), context_tokens=4096)
