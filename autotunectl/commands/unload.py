"""autotunectl unload: takes a model out of memory. Starts no daemon: without one, none is loaded."""

from __future__ import annotations

import click
from autotune.errors import DaemonNotRunning
from autotune.v1 import model_service_pb2

from autotunectl.json_output import message_json
from autotunectl.options import engine_option, verb
from autotunectl.output import format_bytes
from autotunectl.session import Session

_NOT_LOADED = model_service_pb2.UnloadModelResponse.OUTCOME_NOT_LOADED


@verb("unload")
@click.argument("model")
@engine_option("From which engine; without it from each that has it in memory.")
def command(session: Session, model: str, engine: str) -> None:
    """Take MODEL out of memory once its running requests have ended.

    What a server has in memory for another program leaves, too.
    """
    session.flags = {"engine": "--engine"}
    with session.client() as client:
        try:
            response = client.unload_model(model, engine=engine)
        except DaemonNotRunning:
            response = model_service_pb2.UnloadModelResponse(outcome=_NOT_LOADED)
    if session.json:
        session.write_json({"model": model, **message_json(response)})
    else:
        session.write(render(model, response))


def render(model: str, response: model_service_pb2.UnloadModelResponse) -> str:
    """What happened, in one line."""
    if response.outcome == _NOT_LOADED:
        return f"{model} was not in memory.\n"
    if response.freed_memory_bytes:
        return f"Unloaded {model}; {format_bytes(response.freed_memory_bytes)} of memory are free again.\n"
    return f"Unloaded {model}.\n"
