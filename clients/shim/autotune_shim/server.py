"""Runs the HTTP server until it is told to stop. ``autotunectl serve`` and ``__main__`` call ``serve``."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable

import uvicorn
from autotune import AsyncClient, ensure_daemon
from autotune.errors import AutotuneError

from autotune_shim.app import App

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8765
KEEP_ALIVE_SECONDS = 75
DRAIN_SECONDS = 5
"""How long running answers may take to finish when the server stops."""

_HIGHEST_PORT = 65535


def say_where(url: str) -> None:
    """Tells a person where the server listens."""
    sys.stderr.write(f"Serving OpenAI's API at {url}/v1 (stop with Ctrl-C).\n")


def serve(
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    address: str | None = None,
    announce: Callable[[str], None] = say_where,
) -> None:
    """Serves HTTP on ``host``:``port`` (0: any free one) for the daemon at ``address`` (None: the default).

    Starts a daemon when none runs. Calls ``announce`` with the server's URL once it listens. Blocks
    until SIGINT or SIGTERM. Raises SystemExit with one
    sentence when the port cannot be had or no daemon can be reached.
    """
    with bind(host, port) as listener:
        try:
            ensure_daemon(address)
        except AutotuneError as error:
            raise SystemExit(error.message) from None
        try:
            app = App(lambda: AsyncClient(address, client_name="shim"))
            make_server(app, announce).run(sockets=[listener])
        except KeyboardInterrupt:
            return


def make_server(app: App, announce: Callable[[str], None] = say_where) -> uvicorn.Server:
    """The HTTP server around ``app``. asyncio sets TCP_NODELAY on what a TCP listener of ``bind`` accepts."""
    config = uvicorn.Config(
        app,
        loop="asyncio",  # uvloop would save 0.04 ms of a first token and cost 2 MB
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        # Longer than clients keep idle connections, so that none is closed under a request.
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    return _Server(config, announce)


class _Server(uvicorn.Server):
    """A server that says where it listens, once it does."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[str], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            self._announce(f"http://{shown}:{port}")


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises SystemExit with one sentence."""
    if not 0 <= port <= _HIGHEST_PORT:
        raise SystemExit(f"There is no port {port}; choose one from 0 to {_HIGHEST_PORT} with --port.")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise SystemExit(f'"{host}" is not an address to listen on; try --host {DEFAULT_HOST}.') from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(place)
        listener.listen()
    except OSError as error:
        listener.close()
        raise SystemExit(_bind_failure(error, host, port)) from None
    return listener


def _bind_failure(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is taken; stop the program that has it, or choose another with --port."
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} is reserved for the administrator; choose one above 1023 with --port."
    return f"Cannot listen on {host} port {port}: {error.strerror}."
