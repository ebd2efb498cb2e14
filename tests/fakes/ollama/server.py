"""The program that stands in for ``ollama``: ``serve`` and ``--version``.

    python -m tests.fakes.ollama.server serve

It is set by the same environment variables; ``OLLAMA_HOST=127.0.0.1:0`` takes any free port, which
the line ``Listening on ...`` on its standard error tells. ``OLLAMA_DOUBLE_VERSION``,
``OLLAMA_DOUBLE_RELOAD_SECONDS`` and ``OLLAMA_DOUBLE_REGISTRY``, the host and port that is asked for names
without a host, are the double's own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import urllib.request
from json import loads

from tests.fakes.ollama.settings import Settings, settings_from

_USAGE = "Usage:\n  ollama serve\n  ollama --version\n"


def main() -> int:
    """Serves until a signal, or answers at once."""
    settings = settings_from(os.environ)
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb in {"serve", "start"}:
        return _serve(settings)
    if verb in {"--version", "-v"}:
        return _say_version(settings)
    (sys.stderr if verb else sys.stdout).write(_USAGE)
    return 1 if verb else 0


def _serve(settings: Settings) -> int:
    import uvicorn

    from tests.fakes.ollama.application import application

    try:
        listener = socket.create_server((settings.host, settings.port))
    except OSError as error:
        reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
        sys.stderr.write(f"Error: listen tcp {settings.host}:{settings.port}: bind: {reason}\n")
        return 1
    # Headers and body are two writes; without this the second one waits for the client's word.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: None)  # uvicorn raises them again at its end
    host, port = listener.getsockname()[:2]
    sys.stderr.write(
        f'level=INFO source=double msg="Listening on {host}:{port} (version {settings.version})"\n'
    )
    sys.stderr.flush()
    config = uvicorn.Config(
        application(settings), log_config=None, access_log=False, timeout_graceful_shutdown=1, lifespan="on"
    )
    with listener:
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
    return 0


def _say_version(settings: Settings) -> int:
    """The running server's version, and this program's where they differ."""
    running = ""
    try:
        url = f"http://{settings.host}:{settings.port}/api/version"
        with urllib.request.urlopen(url, timeout=2) as answer:  # loopback
            running = loads(answer.read())["version"]
    except OSError:
        sys.stdout.write("Warning: could not connect to a running Ollama instance\n")
    if running:
        sys.stdout.write(f"ollama version is {running}\n")
    if running != settings.version:
        sys.stdout.write(f"Warning: client version is {settings.version}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
