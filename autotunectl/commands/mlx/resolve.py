"""autotunectl mlx resolve: which repositories a name stands for."""

from __future__ import annotations

import click
from autotune.v1 import model_service_pb2

from autotunectl import exits
from autotunectl.commands.mlx import ENGINE
from autotunectl.json_output import message_json
from autotunectl.options import verb
from autotunectl.output import one_line
from autotunectl.plans import indented_wrapped
from autotunectl.session import Session


@verb("resolve")
@click.argument("name")
@click.option("-v", "--verbose", is_flag=True, help="Also show how they were found.")
def command(session: Session, name: str, verbose: bool) -> int:
    """Show which MLX repositories NAME stands for.

    One a line, the best first. Nothing is downloaded, and nobody is asked whether they exist. Exit status 4
    when none is known.
    """
    session.flags = {"model": "NAME"}
    with session.connect() as client:
        response = client.resolve_pull(name, ENGINE)
    if session.json:
        session.write_json({"model": name, **message_json(response)})
    elif response.sources:
        session.write(render(response, verbose=verbose))
    else:
        session.note(
            f'No MLX repository is known for "{one_line(name)}"; '
            'name one as in "hf:mlx-community/Qwen3-8B-4bit".'
        )
    return exits.DONE if response.sources else exits.NOT_FOUND


def render(response: model_service_pb2.ResolvePullResponse, *, verbose: bool) -> str:
    """The repositories, then how they were found."""
    text = "".join(f"{one_line(source)}\n" for source in response.sources)
    if verbose:
        text += indented_wrapped([("why", reason.text) for reason in response.reasons])
    return text
