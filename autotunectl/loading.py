"""Loads a model and shows how it goes. ``load`` and ``run`` use it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autotune.errors import Internal
from autotune.v1 import plan_pb2

from autotunectl.chat.screen import StatusLine, loading_text
from autotunectl.json_output import message_json
from autotunectl.output import format_bytes, format_count, format_seconds, one_line

if TYPE_CHECKING:
    from autotune.client import Client
    from autotune.v1 import model_service_pb2

    from autotunectl.session import Session


def load_model(
    session: Session,
    client: Client,
    request: model_service_pb2.LoadModelRequest,
    on_event: Callable[[model_service_pb2.LoadModelResponse], None] = lambda _event: None,
) -> model_service_pb2.LoadedModel:
    """Loads, with a status line for a person. Raises AutotuneError."""
    status = StatusLine(enabled=sys.stderr.isatty() and not session.json)
    try:
        for response in client.load_model(request):
            on_event(response)
            if response.HasField("loaded"):
                return response.loaded
            status.show(loading_text(response.progress, request.model))
    finally:
        status.clear()
    raise Internal("The daemon ended the load without a result; its log has more.")


def event_json(response: model_service_pb2.LoadModelResponse) -> dict[str, Any]:
    """One event of a load."""
    event = response.WhichOneof("event") or ""
    return {"event": event, **message_json(getattr(response, event))} if event else {}


def loaded_text(loaded: model_service_pb2.LoadedModel) -> str:
    """What is in memory now, and why it has this shape."""
    model, shape = loaded.running_model, loaded.running_model.shape
    took = model.load_duration.seconds + model.load_duration.nanos / 1e9
    slots = f"{shape.slots_count} {'slot' if shape.slots_count == 1 else 'slots'}"
    weights, cache = format_bytes(model.weights_bytes), format_bytes(model.kv_cache_bytes)
    was = "was in memory already" if loaded.plan.action == plan_pb2.PLAN_ACTION_REUSE else "is in memory"
    lines = [
        f"{one_line(model.id)} {was}, loaded in {format_seconds(took)}.",
        f"  context  {format_count(shape.context_tokens)} tokens in each of {slots}",
        f"  memory   {weights} weights, {cache} KV cache",
    ]
    lines += [f"  why      {one_line(reason.text)}" for reason in loaded.plan.reasons]
    return "\n".join(lines) + "\n"
