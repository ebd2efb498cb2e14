"""autotunectl ps: the models in memory. Starts no daemon: without one, there are none."""

from __future__ import annotations

import time
from collections.abc import Iterable

import click
from autotune.errors import DaemonNotRunning
from autotune.v1 import model_pb2, plan_pb2, system_service_pb2

from autotunectl.json_output import enum_text, message_json
from autotunectl.options import verb
from autotunectl.output import (
    NOTHING,
    PLAIN,
    Column,
    Style,
    format_bytes,
    format_seconds,
    format_table,
    one_line,
)
from autotunectl.plans import footprint_text, indented
from autotunectl.session import Session
from autotunectl.shapes import shape_count, shape_lines

_COLUMNS = (
    Column("MODEL"),
    Column("ENGINE"),
    Column("STATE"),
    Column("CONTEXT", right=True),
    Column("SLOTS", right=True),
    Column("KV CACHE", right=True),
    Column("MEMORY", right=True),
    Column("PID", right=True),
    Column("AGE", right=True),
    Column("UNTIL", right=True),
    Column("ACTIVE", right=True),
    Column("QUEUED", right=True),
)


@verb("ps")
@click.option("-v", "--verbose", is_flag=True, help="Also show what takes the memory, and why.")
def command(session: Session, verbose: bool) -> None:
    """List the models in memory.

    Those on their way into it are there, too. MEMORY is what the model's process holds, KV CACHE the
    part of it that keeps the conversations. UNTIL is when the model leaves if nobody uses it: "needed" is
    when its memory is. "ready (others)" is in the memory of an engine's server, where another program
    loaded it.
    """
    running: list[model_pb2.RunningModel] | None
    with session.client() as client:
        try:
            running = client.list_running_models()
            snapshot = client.snapshot()
        except DaemonNotRunning:
            running, snapshot = None, system_service_pb2.Snapshot()
    if session.json:
        models = [message_json(model) for model in running or ()]
        tier = enum_text(snapshot, "pressure_tier") if running is not None else None
        session.write_json(
            {"daemon_running": running is not None, "running_models": models, "pressure_tier": tier}
        )
    elif running is None:
        session.note('No daemon is running, so no model is in memory; "autotunectl chat" starts one.')
    elif not running:
        session.note('No model is in memory; "autotunectl run MODEL" loads one.')
    else:
        session.write(render(running, time.time(), verbose=verbose, style=session.out_style))
    if running is not None and not session.json:
        session.write(pressure_text(snapshot))


def render(
    running: Iterable[model_pb2.RunningModel], now: float, *, verbose: bool, style: Style = PLAIN
) -> str:
    """The table. ``now``: seconds since the epoch."""
    models = list(running)
    text = format_table(_COLUMNS, [_row(model, now) for model in models], style)
    if verbose:
        text += "".join(_details(model) for model in models)
    return text


def pressure_text(snapshot: system_service_pb2.Snapshot) -> str:
    """One line where memory is short, else nothing."""
    if snapshot.pressure_tier <= plan_pb2.PRESSURE_TIER_NORMAL:
        return ""
    used_bytes = snapshot.memory_total_bytes - snapshot.memory_available_bytes
    of = f"{format_bytes(used_bytes)} of {format_bytes(snapshot.memory_total_bytes)} used"
    return f"\nMemory pressure is {enum_text(snapshot, 'pressure_tier')}: {of}.\n"


def _row(model: model_pb2.RunningModel, now: float) -> tuple[str, ...]:
    age = format_seconds(max(0.0, now - model.load_time.seconds)) if model.HasField("load_time") else NOTHING
    state = enum_text(model, "state")
    requests = (model.active_requests_count, model.queued_requests_count)
    return (
        model.id,
        model.engine or NOTHING,
        f"{state} (others)" if model.loaded_by_others else state,
        shape_count(model.shape, "context_tokens"),
        shape_count(model.shape, "slots_count"),
        format_bytes(model.kv_cache_bytes),
        format_bytes(model.resident_memory_bytes),
        str(model.process_id) if model.process_id else NOTHING,
        age,
        _until(model, now),
        *(NOTHING if model.loaded_by_others else str(count) for count in requests),
    )


def _until(model: model_pb2.RunningModel, now: float) -> str:
    if model.HasField("expiry_time"):
        return format_seconds(max(0.0, model.expiry_time.seconds - now))
    stays = model.state == model_pb2.MODEL_STATE_READY and not model.loaded_by_others
    return "needed" if stays else NOTHING


def _details(model: model_pb2.RunningModel) -> str:
    lines = [("memory", footprint_text(model.footprint))] if model.footprint.total_bytes else []
    lines += shape_lines(model.shape, model.engine) if model.HasField("shape") else []
    lines += [("why", reason.text) for reason in model.reasons]
    return f"\n{one_line(model.id)}:\n{indented(lines)}" if lines else ""
