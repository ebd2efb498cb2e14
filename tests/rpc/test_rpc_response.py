"""Core to wire: every value of a plan, a model and a snapshot arrives, and what is unknown is absent."""

from __future__ import annotations

import dataclasses

import pytest
from autotune.v1 import model_pb2, plan_pb2, system_service_pb2

from autotuned.core.generation import Prewarmed
from autotuned.core.memory import Footprint, MemoryReading, PressureTier
from autotuned.core.model import LoadPhase, LoadProgress, ModelState, RunningModel
from autotuned.core.plan import Fit, FitClass, KvCacheType, LoadShape, Plan, PlanAction, Reason
from autotuned.core.snapshot import MachineReading, Snapshot
from autotuned.rpc.plans import fit_message, footprint_message, plan_message, shape_message
from autotuned.rpc.response import load_progress, prewarm_response, running_model_message, snapshot_message

SHAPE = LoadShape(
    context_tokens=2048,
    slots_count=2,
    kv_unified=True,
    key_cache_type=KvCacheType.Q8_0,
    value_cache_type=KvCacheType.F16,
    batch_tokens=512,
    micro_batch_tokens=256,
    flash_attention=True,
    gpu_layers_count=7,
    host_prompt_cache_bytes=9,
    memory_mapped=True,
    assumed=("batch_tokens",),
)
FOOTPRINT = Footprint(
    weights_bytes=1,
    repacked_weights_bytes=2,
    kv_cache_bytes=4,
    compute_bytes=8,
    process_bytes=16,
    host_prompt_cache_bytes=32,
)
FIT = Fit(fit_class=FitClass.MARGINAL, required_bytes=5, available_bytes=6, safe_context_tokens=4096)
PLAN = Plan(
    action=PlanAction.SHRINK,
    shape=SHAPE,
    footprint=FOOTPRINT,
    reasons=(Reason("a", "One."), Reason("b", "Two.")),
    fit=FIT,
    evictions=("first", "second"),
    reduction_level=3,
    available_before_bytes=100,
    available_after_bytes=60,
    pressure=PressureTier.HIGH,
)


def running(**changes) -> RunningModel:
    model = RunningModel(
        id="pocket",
        engine="llamacpp",
        state=ModelState.READY,
        incarnation_id="i",
        shape=SHAPE,
        footprint=FOOTPRINT,
        expires_at=1_700_000_000.5,
        resident_memory_bytes=3,
        process_id=4,
        loaded_at=1_700_000_000.0,
        last_used_at=0.0,
        load_seconds=0.5,
        active_requests_count=1,
        queued_requests_count=2,
        reasons=PLAN.reasons,
    )
    return dataclasses.replace(model, **changes)


def test_a_plan_arrives_whole():
    message = plan_message(PLAN)
    assert message.action == plan_pb2.PLAN_ACTION_SHRINK
    assert (message.kv_cache_bytes, message.weights_bytes) == (4, 1)
    assert [reason.code for reason in message.reasons] == ["a", "b"]
    assert message.footprint == footprint_message(FOOTPRINT)
    assert message.fit == fit_message(FIT)
    assert list(message.evicted_models) == ["first", "second"]
    assert message.reduction_level == 3
    assert (message.available_before_bytes, message.available_after_bytes) == (100, 60)
    assert message.pressure_tier == plan_pb2.PRESSURE_TIER_HIGH


@pytest.mark.parametrize(
    ("core", "message"), [(SHAPE, shape_message(SHAPE)), (FOOTPRINT, footprint_message(FOOTPRINT))]
)
def test_no_field_of_a_shape_or_a_footprint_is_left_out(core, message):
    """All values above differ from their defaults, so a field that was forgotten is one that is not set."""
    assert {field.name for field, _ in message.ListFields()} == set(message.DESCRIPTOR.fields_by_name)
    assert {field.name for field in dataclasses.fields(core)} <= set(message.DESCRIPTOR.fields_by_name)


def test_a_footprint_has_its_total():
    assert footprint_message(FOOTPRINT).total_bytes == 63


def test_a_kept_shape_has_no_fit():
    assert not plan_message(dataclasses.replace(PLAN, fit=None)).HasField("fit")


@pytest.mark.parametrize("fit_class", FitClass)
def test_every_class_of_fit_has_its_value(fit_class):
    message = fit_message(dataclasses.replace(FIT, fit_class=fit_class))
    assert plan_pb2.FitClass.Name(message.fit_class) == f"FIT_CLASS_{fit_class.name}"


@pytest.mark.parametrize("tier", PressureTier)
@pytest.mark.parametrize("action", PlanAction)
def test_every_tier_and_action_has_its_value(tier, action):
    message = plan_message(dataclasses.replace(PLAN, pressure=tier, action=action))
    assert plan_pb2.PressureTier.Name(message.pressure_tier) == f"PRESSURE_TIER_{tier.name}"
    assert plan_pb2.PlanAction.Name(message.action) == f"PLAN_ACTION_{action.name}"


@pytest.mark.parametrize("phase", LoadPhase)
def test_every_phase_of_a_load_has_its_value(phase):
    message = load_progress(LoadProgress(phase, 0.5))
    assert model_pb2.LoadPhase.Name(message.phase) == f"LOAD_PHASE_{phase.name}"


def test_a_running_model_has_its_footprint_and_its_end():
    message = running_model_message(running())
    assert (message.weights_bytes, message.kv_cache_bytes, message.footprint.total_bytes) == (1, 4, 63)
    assert message.expiry_time.ToMilliseconds() == 1_700_000_000_500


def test_a_model_that_stays_or_is_not_there_yet_lacks_what_is_unknown():
    message = running_model_message(running(expires_at=0.0, footprint=None, shape=None))
    for field in ("expiry_time", "footprint", "shape"):
        assert not message.HasField(field)
    assert (message.weights_bytes, message.kv_cache_bytes) == (0, 0)


def snapshot(**memory) -> system_service_pb2.Snapshot:
    reading = MemoryReading(
        total_bytes=100, available_bytes=40, swap_total_bytes=50, swap_free_bytes=20, **memory
    )
    machine = MachineReading(
        cpu_used_ratio=0.5, cpu_cores_count=2, memory=reading, daemon_resident_memory_bytes=7
    )
    return snapshot_message(
        Snapshot(
            taken_at=1.0,
            machine=machine,
            pressure=PressureTier.ELEVATED,
            saved_prefixes_count=3,
            saved_prefixes_bytes=4096,
            running_models=(running(),),
            active_requests_count=1,
            queued_requests_count=2,
        )
    )


def test_a_snapshot_tells_memory_pressure_and_prefixes():
    message = snapshot(limit_bytes=100, stalled_ratio=0.0)
    assert (message.memory_total_bytes, message.memory_available_bytes) == (100, 40)
    assert (message.swap_total_bytes, message.swap_used_bytes) == (50, 30)
    assert message.pressure_tier == plan_pb2.PRESSURE_TIER_ELEVATED
    assert (message.saved_prefixes_count, message.saved_prefixes_bytes) == (3, 4096)
    assert message.memory_limit_bytes == 100
    assert message.HasField("memory_stalled_ratio")


def test_a_machine_that_tells_less_leaves_it_out():
    message = snapshot()
    assert not message.HasField("memory_limit_bytes")
    assert not message.HasField("memory_stalled_ratio")


def test_what_was_prewarmed_arrives_whole():
    message = prewarm_response(
        Prewarmed(
            plan=PLAN,
            prompt_tokens=9,
            cached_tokens=4,
            overtaken=True,
            load_seconds=0.5,
            total_seconds=1.5,
        )
    )
    assert (message.prompt_tokens, message.cached_tokens, message.overtaken) == (9, 4, True)
    assert (message.load_duration.nanos, message.total_duration.seconds) == (500_000_000, 1)
    assert message.plan.reduction_level == 3
