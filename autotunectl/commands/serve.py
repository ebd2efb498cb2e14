"""autotunectl serve: the HTTP server in the foreground."""

from __future__ import annotations

import click
from autotune.channel import resolved_address
from autotune.errors import AutotuneError

from autotunectl.options import verb
from autotunectl.session import Session


@verb("serve")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    envvar="AUTOTUNE_HOST",
    help="The interface to listen on.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8765,
    show_default=True,
    envvar="AUTOTUNE_PORT",
    help="The port to listen on.",
)
def command(session: Session, host: str, port: int) -> None:
    """Serve the OpenAI API over HTTP until Ctrl-C.

    Any program that speaks to OpenAI can use it: set its base URL to what this prints.
    """
    from autotune_shim.server import say_where, serve

    session.connect().close()

    def write_json(url: str) -> None:
        session.write_json({"url": url, "host": host, "port": port})

    announce = write_json if session.json else say_where
    try:
        serve(host=host, port=port, address=resolved_address(session.address), announce=announce)
    except SystemExit as end:
        if isinstance(end.code, str):
            raise AutotuneError(end.code, reason="CANNOT_LISTEN") from None
        raise
