"""Loads a model and shows how it goes. ``load`` and ``run`` use it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from autotune.errors import Internal
from autotune.v1 import plan_pb2

from autotunectl.chat.screen import StatusLine, loading_text
from autotunectl.output import format_seconds, one_line
from autotunectl.plans import indented, is_elsewhere, plan_lines

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


def loaded_text(loaded: model_service_pb2.LoadedModel) -> str:
    """What is in memory now, and why it has this shape."""
    return f"{loaded_line(loaded)}\n{indented(_lines(loaded))}"


def loaded_line(loaded: model_service_pb2.LoadedModel) -> str:
    """That the model is in memory, and how long that took; or where else it runs."""
    model = loaded.running_model
    if is_elsewhere(loaded.plan):
        return f"{one_line(model.id)} is ready on {one_line(model.engine)}; it takes no memory here."
    took = model.load_duration.seconds + model.load_duration.nanos / 1e9
    was = "was in memory already" if loaded.plan.action == plan_pb2.PLAN_ACTION_REUSE else "is in memory"
    return f"{one_line(model.id)} {was}, loaded in {format_seconds(took)}."


def _lines(loaded: model_service_pb2.LoadedModel) -> list[tuple[str, str]]:
    """The plan, with what was measured where it was computed."""
    measured = plan_pb2.Plan()
    measured.CopyFrom(loaded.plan)
    if loaded.running_model.HasField("footprint"):
        measured.footprint.CopyFrom(loaded.running_model.footprint)
    return plan_lines(measured, loaded.running_model.engine)
