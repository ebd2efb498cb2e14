"""Generates the gRPC stubs from ``proto/`` into ``clients/python/autotune/v1``.

hatchling runs it for every wheel, sdist and editable install; ``make proto`` runs it by hand.
The proto package is the Python package, so that no import needs rewriting.
"""

from __future__ import annotations

import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("autotune/v1")


def generate(root: Path) -> None:
    """Replaces the generated package; raises RuntimeError when protoc refuses a file."""
    from grpc_tools import protoc

    sources = sorted((root / "proto" / PACKAGE).glob("*.proto"))
    target = root / "clients/python"
    shutil.rmtree(target / PACKAGE, ignore_errors=True)
    (target / PACKAGE).mkdir(parents=True)
    status = protoc.main(
        [
            "protoc",
            f"-I{root / 'proto'}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            *map(str, sources),
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}")
    (target / PACKAGE / "__init__.py").write_text('"""Generated from proto/autotune/v1."""\n')


class StubsHook(BuildHookInterface[Any]):
    """The hatchling side of ``generate``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        generate(Path(self.root))


if __name__ == "__main__":
    generate(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
