"""Core to wire: plans and what is in them."""

from __future__ import annotations

from autotune.v1 import plan_pb2

from autotuned.core.memory import Footprint, PressureTier
from autotuned.core.plan import Fit, FitClass, KvCacheType, LoadShape, Plan, PlanAction, Reason
from autotuned.policy.remote import UNKNOWN_CONTEXT_TOKENS

_ACTIONS = {
    PlanAction.REUSE: plan_pb2.PLAN_ACTION_REUSE,
    PlanAction.LOAD: plan_pb2.PLAN_ACTION_LOAD,
    PlanAction.GROW: plan_pb2.PLAN_ACTION_GROW,
    PlanAction.SHRINK: plan_pb2.PLAN_ACTION_SHRINK,
}
_CACHE_TYPES = {
    KvCacheType.F16: plan_pb2.KV_CACHE_TYPE_F16,
    KvCacheType.Q8_0: plan_pb2.KV_CACHE_TYPE_Q8_0,
}
_FIT_CLASSES = {
    FitClass.SAFE: plan_pb2.FIT_CLASS_SAFE,
    FitClass.MARGINAL: plan_pb2.FIT_CLASS_MARGINAL,
    FitClass.SWAP_RISK: plan_pb2.FIT_CLASS_SWAP_RISK,
    FitClass.OOM: plan_pb2.FIT_CLASS_OOM,
}
PRESSURE_TIERS = {
    PressureTier.NORMAL: plan_pb2.PRESSURE_TIER_NORMAL,
    PressureTier.ELEVATED: plan_pb2.PRESSURE_TIER_ELEVATED,
    PressureTier.HIGH: plan_pb2.PRESSURE_TIER_HIGH,
    PressureTier.CRITICAL: plan_pb2.PRESSURE_TIER_CRITICAL,
}


def plan_message(plan: Plan) -> plan_pb2.Plan:
    """A plan."""
    return plan_pb2.Plan(
        action=_ACTIONS[plan.action],
        shape=shape_message(plan.shape),
        kv_cache_bytes=plan.footprint.kv_cache_bytes,
        weights_bytes=plan.footprint.weights_bytes,
        reasons=reason_messages(plan.reasons),
        footprint=footprint_message(plan.footprint),
        fit=fit_message(plan.fit) if plan.fit else None,
        evicted_models=plan.evictions,
        reduction_level=plan.reduction_level,
        available_before_bytes=plan.available_before_bytes,
        available_after_bytes=plan.available_after_bytes,
        pressure_tier=PRESSURE_TIERS[plan.pressure],
    )


def shape_message(shape: LoadShape) -> plan_pb2.LoadShape:
    """A shape."""
    return plan_pb2.LoadShape(
        context_tokens=0 if shape.context_tokens == UNKNOWN_CONTEXT_TOKENS else shape.context_tokens,
        slots_count=shape.slots_count,
        key_cache_type=_CACHE_TYPES[shape.key_cache_type],
        value_cache_type=_CACHE_TYPES[shape.value_cache_type],
        batch_tokens=shape.batch_tokens,
        micro_batch_tokens=shape.micro_batch_tokens,
        flash_attention=shape.flash_attention,
        gpu_layers_count=shape.gpu_layers_count,
        kv_unified=shape.kv_unified,
        host_prompt_cache_bytes=shape.host_prompt_cache_bytes,
        memory_mapped=shape.memory_mapped,
        assumed=shape.assumed,
    )


def footprint_message(footprint: Footprint) -> plan_pb2.Footprint:
    """Bytes by what they are for."""
    return plan_pb2.Footprint(
        weights_bytes=footprint.weights_bytes,
        repacked_weights_bytes=footprint.repacked_weights_bytes,
        kv_cache_bytes=footprint.kv_cache_bytes,
        compute_bytes=footprint.compute_bytes,
        process_bytes=footprint.process_bytes,
        host_prompt_cache_bytes=footprint.host_prompt_cache_bytes,
        total_bytes=footprint.total_bytes,
    )


def fit_message(fit: Fit) -> plan_pb2.Fit:
    """How a load fits into memory."""
    return plan_pb2.Fit(
        fit_class=_FIT_CLASSES[fit.fit_class],
        required_bytes=fit.required_bytes,
        available_bytes=fit.available_bytes,
        safe_context_tokens=fit.safe_context_tokens,
    )


def reason_messages(reasons: tuple[Reason, ...]) -> list[plan_pb2.PlanReason]:
    """The reasons, in their order."""
    return [plan_pb2.PlanReason(code=reason.code, text=reason.text) for reason in reasons]
