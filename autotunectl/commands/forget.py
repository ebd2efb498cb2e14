"""autotunectl forget: deletes saved KV prefixes, which hold what was said in recoverable form."""

from __future__ import annotations

import click
from autotune.v1 import model_service_pb2, system_service_pb2

from autotunectl import exits
from autotunectl.asking import agrees
from autotunectl.json_output import message_json
from autotunectl.options import verb
from autotunectl.output import format_amount
from autotunectl.session import Session


@verb("forget")
@click.argument("model", default=None)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(session: Session, model: str | None, yes: bool) -> int:
    """Delete the saved KV prefixes of MODEL, or of every model.

    They are what the models computed of earlier prompts, kept on disk so that it need not be computed
    again. Conversations go on without them; their next answer begins later.
    """
    if model == "":
        raise click.UsageError("MODEL is empty; name the model, or leave it out for all of them")
    model = model or ""
    if not yes and not session.can_ask:
        raise click.UsageError("Nobody is there to ask; add --yes to delete")
    with session.connect() as client:
        if not yes and not _agrees(model, client.snapshot()):
            session.note("Nothing was deleted.")
            return exits.DONE
        response = client.delete_prefixes(model)
        if model and not response.deleted_count:
            client.get_model(model)  # a name that was mistyped is told as such
    if session.json:
        session.write_json({"model": model, **message_json(response)})
    else:
        session.write(render(model, response))
    return exits.DONE


def _agrees(model: str, snapshot: system_service_pb2.Snapshot) -> bool:
    """Asks; where nothing is saved there is nothing to ask."""
    count = snapshot.saved_prefixes_count
    if not count:
        return True
    what = f"{_count(count)} ({format_amount(snapshot.saved_prefixes_bytes)})"
    if model:
        return agrees(f"Delete those of {model}, of {what} in all?")
    return agrees(f"Delete {what}?")


def render(model: str, response: model_service_pb2.DeletePrefixesResponse) -> str:
    """What happened, in one line."""
    of = f" of {model}" if model else ""
    if not response.deleted_count:
        return f"There are no saved KV prefixes{of}.\n"
    freed = format_amount(response.freed_bytes)
    return f"Deleted {_count(response.deleted_count)}{of}; {freed} on disk are free again.\n"


def _count(count: int) -> str:
    return f"{count:,} saved KV {'prefix' if count == 1 else 'prefixes'}"
