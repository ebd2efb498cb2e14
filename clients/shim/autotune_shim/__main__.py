"""python -m autotune_shim: argv and environment into ``serve``."""

from __future__ import annotations

import argparse
import os

from autotune_shim.server import DEFAULT_HOST, DEFAULT_PORT, serve


def main() -> None:
    """Reads the options and serves until a signal."""
    parser = argparse.ArgumentParser(
        prog="autotune_shim", description="Serves OpenAI's HTTP API from the autotune daemon."
    )
    parser.add_argument(
        "--host", default=os.environ.get("AUTOTUNE_HOST", DEFAULT_HOST), help="address to listen on"
    )
    parser.add_argument(
        "--port", type=int, default=os.environ.get("AUTOTUNE_PORT", DEFAULT_PORT), help="port to listen on"
    )
    parser.add_argument(
        "--address", default=None, help="the daemon's address, for example unix:/run/autotuned.sock"
    )
    options = parser.parse_args()
    serve(host=options.host, port=options.port, address=options.address)


if __name__ == "__main__":
    main()
