"""Wire messages as a daemon would send them, for the tests of its clients."""

from __future__ import annotations

import grpc
from autotune.v1 import engine_service_pb2, inference_service_pb2, model_pb2, plan_pb2
from google.protobuf import any_pb2, duration_pb2, timestamp_pb2
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "autotune.v1"
START_TIME = timestamp_pb2.Timestamp(seconds=1_700_000_000)


def milliseconds(count: int) -> duration_pb2.Duration:
    return duration_pb2.Duration(nanos=count * 1_000_000)


def rich_status(
    code: grpc.StatusCode,
    reason: str,
    message: str,
    *,
    retry_seconds: int = 0,
    domain: str = DOMAIN,
    **metadata: str,
) -> status_pb2.Status:
    """What the daemon's error interceptor sends."""
    details = [error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)]
    if retry_seconds:
        delay = duration_pb2.Duration(seconds=retry_seconds)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        holder = any_pb2.Any()
        holder.Pack(detail)
        packed.append(holder)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)


def footprint() -> plan_pb2.Footprint:
    return plan_pb2.Footprint(
        weights_bytes=2_300_000,
        kv_cache_bytes=2 << 20,
        compute_bytes=10 << 20,
        process_bytes=20 << 20,
        host_prompt_cache_bytes=1 << 20,
        total_bytes=2_300_000 + (33 << 20),
    )


def fit(fit_class: int = plan_pb2.FIT_CLASS_SAFE, safe_context_tokens: int = 8192) -> plan_pb2.Fit:
    return plan_pb2.Fit(
        fit_class=fit_class,
        required_bytes=34 << 20,
        available_bytes=6 << 30,
        safe_context_tokens=safe_context_tokens,
    )


def plan() -> plan_pb2.Plan:
    return plan_pb2.Plan(
        action=plan_pb2.PLAN_ACTION_LOAD,
        shape=plan_pb2.LoadShape(
            context_tokens=2048,
            slots_count=1,
            key_cache_type=plan_pb2.KV_CACHE_TYPE_Q8_0,
            value_cache_type=plan_pb2.KV_CACHE_TYPE_F16,
            batch_tokens=512,
            micro_batch_tokens=256,
            flash_attention=True,
            memory_mapped=True,
        ),
        kv_cache_bytes=2 << 20,
        weights_bytes=2_300_000,
        footprint=footprint(),
        fit=fit(),
        available_before_bytes=6 << 30,
        available_after_bytes=(6 << 30) - (34 << 20),
        pressure_tier=plan_pb2.PRESSURE_TIER_NORMAL,
        reasons=[
            plan_pb2.PlanReason(code="needs", text="24 prompt tokens + 1,024 for the reply = 1,048 tokens."),
            plan_pb2.PlanReason(code="bucket", text="1,048 snaps up to the bucket 2,048."),
        ],
    )


def delta(text: str) -> inference_service_pb2.GenerateResponse:
    return inference_service_pb2.GenerateResponse(delta=inference_service_pb2.Delta(text=text))


def queued(position: int = 0, phase: int | None = None) -> inference_service_pb2.GenerateResponse:
    event = inference_service_pb2.Queued(position=position)
    if phase is not None:
        event.load_progress.phase = phase
        event.load_progress.elapsed_duration.CopyFrom(milliseconds(120))
    return inference_service_pb2.GenerateResponse(queued=event)


def started(model: str = "pocket", *, counts: bool = True) -> inference_service_pb2.GenerateResponse:
    """``counts`` False: of an engine that tells them only at the end."""
    return inference_service_pb2.GenerateResponse(
        started=inference_service_pb2.Started(
            request_id="r1",
            model=model,
            engine="llamacpp",
            plan=plan(),
            prompt_tokens=24 if counts else None,
            cached_tokens=8 if counts else None,
        )
    )


def finished(
    reason: int = inference_service_pb2.FINISH_REASON_STOP, *, cached_tokens: int = 8
) -> inference_service_pb2.GenerateResponse:
    return inference_service_pb2.GenerateResponse(
        finished=inference_service_pb2.Finished(
            finish_reason=reason,
            usage=inference_service_pb2.Usage(prompt_tokens=24, cached_tokens=cached_tokens, reply_tokens=9),
            timings=inference_service_pb2.Timings(
                time_to_first_token_duration=milliseconds(21),
                total_duration=milliseconds(60),
                decode_tokens_per_second=412.34,
            ),
        )
    )


def not_found(model: str) -> status_pb2.Status:
    return rich_status(
        grpc.StatusCode.NOT_FOUND,
        "MODEL_NOT_FOUND",
        f'There is no model "{model}"; did you mean "pocket"? "autotunectl ls" lists the models.',
        model=model,
        suggestion="pocket",
    )


def engine_unreachable(name: str) -> status_pb2.Status:
    return rich_status(
        grpc.StatusCode.UNAVAILABLE,
        "ENGINE_UNREACHABLE",
        f'The engine {name} cannot be used: it does not answer; "autotunectl doctor" says what to do.',
        engine=name,
    )


def engine(
    name: str, state: int = engine_service_pb2.ENGINE_STATE_READY, **fields: object
) -> engine_service_pb2.Engine:
    """An engine as a table shows it; ``fields`` are more of its fields."""
    return engine_service_pb2.Engine(name=name, state=state, version="b1", **fields)


def listed_model(model: str, *engines: str, **fields: object) -> model_pb2.Model:
    """A sound model of these engines, the first of which would run it."""
    engines = engines or ("llamacpp",)
    paths = {"llamacpp": f"/models/{model}.gguf"}
    return model_pb2.Model(
        **{
            "id": model,
            "engine": engines[0],
            "path": paths.get(engines[0], f"http://{engines[0]}.example"),
            "state": model_pb2.MODEL_STATE_ABSENT,
            "fit": fit(),
            "places": [
                model_pb2.ModelPlace(
                    engine=name,
                    id=model,
                    path=paths.get(name, f"http://{name}.example"),
                    state=model_pb2.MODEL_STATE_ABSENT,
                )
                for name in engines
            ],
            **fields,
        }
    )


def plan_elsewhere() -> plan_pb2.Plan:
    """A plan for a model of a server that decides all of its shape and does not tell its context."""
    return plan_pb2.Plan(
        action=plan_pb2.PLAN_ACTION_LOAD,
        shape=plan_pb2.LoadShape(
            context_tokens=1 << 30,
            slots_count=4,
            key_cache_type=plan_pb2.KV_CACHE_TYPE_F16,
            value_cache_type=plan_pb2.KV_CACHE_TYPE_F16,
            assumed=[field.name for field in plan_pb2.LoadShape.DESCRIPTOR.fields if not field.is_repeated],
        ),
        footprint=plan_pb2.Footprint(),
        pressure_tier=plan_pb2.PRESSURE_TIER_NORMAL,
        reasons=[
            plan_pb2.PlanReason(
                code="elsewhere",
                text="It runs at http://gpu.example, which decides its shape: no memory is taken here.",
            )
        ],
    )


def running_model(model: str = "pocket", engine: str = "llamacpp") -> model_pb2.RunningModel:
    return model_pb2.RunningModel(
        id=model,
        engine=engine,
        state=model_pb2.MODEL_STATE_READY,
        shape=plan().shape,
        kv_cache_bytes=2 << 20,
        weights_bytes=2_300_000,
        resident_memory_bytes=30 << 20,
        process_id=77,
        footprint=footprint(),
        load_time=START_TIME,
        load_duration=milliseconds(420),
        active_requests_count=1,
        reasons=plan().reasons,
        incarnation_id="i1",
    )
