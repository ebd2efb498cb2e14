"""What tests of readings share: machines that are only files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MakeMachine = Callable[[dict[str, str]], Path]


@pytest.fixture
def make_machine(tmp_path: Path) -> MakeMachine:
    """``make_machine({"proc/meminfo": ...})``: the root folder of a machine with these files."""

    def make(files: dict[str, str]) -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return make
