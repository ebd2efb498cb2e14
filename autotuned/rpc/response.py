"""Core to wire: generation events, models and snapshots as messages."""

from __future__ import annotations

from autotune.v1 import inference_service_pb2, model_pb2, system_service_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from autotuned.core.generation import (
    Delta,
    Finished,
    FinishReason,
    GenerationEvent,
    Prewarmed,
    Queued,
    ReasoningDelta,
    Started,
    TextDelta,
    Timings,
    TokenLogprob,
)
from autotuned.core.model import LoadPhase, LoadProgress, ModelState, RunningModel
from autotuned.core.plan import Fit
from autotuned.core.snapshot import Snapshot
from autotuned.rpc.plans import (
    PRESSURE_TIERS,
    fit_message,
    footprint_message,
    plan_message,
    reason_messages,
    shape_message,
)
from autotuned.services.models import Listing

_FINISH = {
    FinishReason.STOP: inference_service_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: inference_service_pb2.FINISH_REASON_LENGTH,
    FinishReason.TOOL_CALLS: inference_service_pb2.FINISH_REASON_TOOL_CALLS,
}
_STATES = {
    ModelState.ABSENT: model_pb2.MODEL_STATE_ABSENT,
    ModelState.LOADING: model_pb2.MODEL_STATE_LOADING,
    ModelState.READY: model_pb2.MODEL_STATE_READY,
    ModelState.DRAINING: model_pb2.MODEL_STATE_DRAINING,
    ModelState.FAILED: model_pb2.MODEL_STATE_FAILED,
}
_PHASES = {
    LoadPhase.WAITING: model_pb2.LOAD_PHASE_WAITING,
    LoadPhase.STARTING: model_pb2.LOAD_PHASE_STARTING,
    LoadPhase.READING_WEIGHTS: model_pb2.LOAD_PHASE_READING_WEIGHTS,
    LoadPhase.ALLOCATING: model_pb2.LOAD_PHASE_ALLOCATING,
    LoadPhase.READY: model_pb2.LOAD_PHASE_READY,
}


def duration(seconds: float) -> Duration:
    """Seconds as a Duration."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def timestamp(seconds: float) -> Timestamp | None:
    """Seconds since the epoch as a Timestamp; 0 is unknown and stays unset."""
    if not seconds:
        return None
    message = Timestamp()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def generate_response(event: GenerationEvent) -> inference_service_pb2.GenerateResponse:
    """One event of a generation."""
    match event:
        case Queued():
            progress = load_progress(event.load_progress) if event.load_progress else None
            return inference_service_pb2.GenerateResponse(
                queued=inference_service_pb2.Queued(position=event.position, load_progress=progress)
            )
        case Started():
            return inference_service_pb2.GenerateResponse(
                started=inference_service_pb2.Started(
                    request_id=event.request_id,
                    model=event.model,
                    engine=event.engine,
                    plan=plan_message(event.plan),
                    prompt_tokens=event.prompt_tokens,
                    cached_tokens=event.cached_tokens,
                )
            )
        case Finished():
            return inference_service_pb2.GenerateResponse(finished=_finished(event))
        case _:
            return inference_service_pb2.GenerateResponse(delta=_delta(event))


def load_progress(progress: LoadProgress) -> model_pb2.LoadProgress:
    """How far a load has come."""
    return model_pb2.LoadProgress(
        phase=_PHASES[progress.phase], elapsed_duration=duration(progress.elapsed_seconds)
    )


def prewarm_response(prewarmed: Prewarmed) -> inference_service_pb2.PrewarmResponse:
    """What was prewarmed."""
    return inference_service_pb2.PrewarmResponse(
        plan=plan_message(prewarmed.plan),
        prompt_tokens=prewarmed.prompt_tokens,
        cached_tokens=prewarmed.cached_tokens,
        overtaken=prewarmed.overtaken,
        load_duration=duration(prewarmed.load_seconds),
        total_duration=duration(prewarmed.total_seconds),
    )


def model_message(listing: Listing, fit: Fit | None) -> model_pb2.Model:
    """A model on disk, and how it would fit into memory now."""
    entry = listing.entry
    facts = entry.facts
    return model_pb2.Model(
        id=listing.model.id,
        engine=entry.engine,
        path=entry.path,
        size_bytes=entry.size_bytes,
        architecture=facts.architecture if facts else "",
        quantization=facts.quantization if facts else "",
        parameters_count=facts.parameters_count if facts else 0,
        train_context_tokens=facts.train_context_tokens if facts else 0,
        state=_STATES[listing.state],
        problem=entry.problem,
        fit=fit_message(fit) if fit else None,
        places=[
            model_pb2.ModelPlace(
                engine=place.engine, id=place.id, path=place.path, state=_STATES[state], problem=place.problem
            )
            for place, state in zip(listing.model.entries, listing.states, strict=True)
        ],
        aliases=listing.model.aliases,
        modalities=facts.modalities if facts else (),
        calls_tools=facts.calls_tools if facts else False,
        thinks=facts.thinks if facts else False,
    )


def running_model_message(model: RunningModel) -> model_pb2.RunningModel:
    """A model in memory."""
    return model_pb2.RunningModel(
        id=model.id,
        engine=model.engine,
        state=_STATES[model.state],
        shape=shape_message(model.shape) if model.shape else None,
        kv_cache_bytes=model.footprint.kv_cache_bytes if model.footprint else 0,
        weights_bytes=model.footprint.weights_bytes if model.footprint else 0,
        resident_memory_bytes=model.resident_memory_bytes,
        process_id=model.process_id,
        load_time=timestamp(model.loaded_at),
        last_use_time=timestamp(model.last_used_at),
        active_requests_count=model.active_requests_count,
        queued_requests_count=model.queued_requests_count,
        load_duration=duration(model.load_seconds),
        reasons=reason_messages(model.reasons),
        incarnation_id=model.incarnation_id,
        footprint=footprint_message(model.footprint) if model.footprint else None,
        expiry_time=timestamp(model.expires_at),
        loaded_by_others=model.loaded_by_others,
    )


def snapshot_message(snapshot: Snapshot) -> system_service_pb2.Snapshot:
    """A snapshot."""
    machine, memory = snapshot.machine, snapshot.machine.memory
    return system_service_pb2.Snapshot(
        snapshot_time=timestamp(snapshot.taken_at),
        cpu_used_ratio=machine.cpu_used_ratio,
        cpu_cores_count=machine.cpu_cores_count,
        memory_total_bytes=memory.total_bytes,
        memory_available_bytes=memory.available_bytes,
        swap_total_bytes=memory.swap_total_bytes,
        swap_used_bytes=max(0, memory.swap_total_bytes - memory.swap_free_bytes),
        daemon_resident_memory_bytes=machine.daemon_resident_memory_bytes,
        running_models=[running_model_message(model) for model in snapshot.running_models],
        active_requests_count=snapshot.active_requests_count,
        queued_requests_count=snapshot.queued_requests_count,
        memory_limit_bytes=memory.limit_bytes,
        pressure_tier=PRESSURE_TIERS[snapshot.pressure],
        memory_stalled_ratio=memory.stalled_ratio,
        saved_prefixes_count=snapshot.saved_prefixes_count,
        saved_prefixes_bytes=snapshot.saved_prefixes_bytes,
    )


def _delta(event: Delta) -> inference_service_pb2.Delta:
    match event:
        case TextDelta():
            return inference_service_pb2.Delta(
                part_index=event.part_index, text=event.text, logprobs=_logprobs(event.logprobs)
            )
        case ReasoningDelta():
            return inference_service_pb2.Delta(
                part_index=event.part_index, reasoning=event.text, logprobs=_logprobs(event.logprobs)
            )
        case _:
            return inference_service_pb2.Delta(
                part_index=event.part_index,
                tool_call=inference_service_pb2.ToolCallFragment(
                    id=event.id,
                    name=event.name,
                    arguments_json_fragment=event.arguments_json_fragment,
                ),
            )


def _logprobs(logprobs: tuple[TokenLogprob, ...]) -> list[inference_service_pb2.TokenLogprob]:
    return [
        inference_service_pb2.TokenLogprob(
            token=item.token,
            token_bytes=item.token_bytes,
            logprob=item.logprob,
            alternatives=[
                inference_service_pb2.AlternativeLogprob(
                    token=other.token, token_bytes=other.token_bytes, logprob=other.logprob
                )
                for other in item.alternatives
            ],
        )
        for item in logprobs
    ]


def _finished(event: Finished) -> inference_service_pb2.Finished:
    usage = event.usage
    return inference_service_pb2.Finished(
        finish_reason=_FINISH[event.finish_reason],
        usage=inference_service_pb2.Usage(
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            reply_tokens=usage.reply_tokens,
        ),
        timings=_timings(event.timings),
    )


def _timings(timings: Timings) -> inference_service_pb2.Timings:
    return inference_service_pb2.Timings(
        queue_duration=duration(timings.queue_seconds),
        load_duration=duration(timings.load_seconds),
        time_to_first_token_duration=duration(timings.time_to_first_token_seconds),
        prefill_duration=duration(timings.prefill_seconds),
        decode_duration=duration(timings.decode_seconds),
        total_duration=duration(timings.total_seconds),
        decode_tokens_per_second=timings.decode_tokens_per_second,
        prefill_tokens_per_second=timings.prefill_tokens_per_second,
    )
