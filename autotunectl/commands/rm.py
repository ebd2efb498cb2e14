"""autotunectl rm: deletes a model from the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from autotune.v1 import model_pb2, model_service_pb2

from autotunectl import exits
from autotunectl.asking import agrees
from autotunectl.json_output import message_json
from autotunectl.options import engine_option, verb
from autotunectl.output import format_amount, format_bytes, format_wrapped, one_line
from autotunectl.session import Session

if TYPE_CHECKING:
    from autotune.client import Client


@verb("rm")
@click.argument("model")
@engine_option("Only this engine's copy; without it every copy.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(session: Session, model: str, engine: str, yes: bool) -> int:
    """Delete MODEL from the disk.

    It leaves memory first, once its running requests have ended. "autotunectl pull" gets it again.
    """
    session.flags = {"engine": "--engine"}
    if not yes and not session.can_ask:
        raise click.UsageError("Nobody is there to ask; add --yes to delete")
    with session.connect() as client:
        if not yes and not _agrees(client, model, engine):
            session.note("Nothing was deleted.")
            return exits.DONE
        response = client.delete_model(model, engine)
    if session.json:
        session.write_json({"model": model, **message_json(response)})
    else:
        session.write(render(model, response))
    return exits.DONE


def _agrees(client: Client, model: str, engine: str) -> bool:
    found = client.get_model(model, engine)
    return agrees(question_text(found, engine))


def question_text(model: model_pb2.Model, engine: str = "") -> str:
    """What would be deleted. ``engine`` "" is every engine that has it."""
    engines = [engine] if engine else list(dict.fromkeys(place.engine for place in model.places))
    size = f" ({format_bytes(model.size_bytes)})" if model.size_bytes else ""
    where = f" from {' and '.join(map(one_line, engines))}" if engines else ""
    return f"Delete {one_line(model.id)}{size}{where}?"


def render(model: str, response: model_service_pb2.DeleteModelResponse) -> str:
    """What happened, where each copy was, and which copies stay, with what to do about them."""
    freed = format_amount(response.freed_bytes)
    places = "".join(f"  {one_line(path)}\n" for path in response.paths)
    text = f"Deleted {one_line(model)}; {freed} on disk are free again.\n{places}"
    if response.kept:
        text += "Not every copy:\n"
        text += format_wrapped([("", reason.text) for reason in response.kept], value_column=2)
    return text
