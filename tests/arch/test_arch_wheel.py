"""What a wheel carries: everything that an installed autotune needs, and no more."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "v1", "build", "dist"
)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The files of a wheel that was built from a copy of this tree."""
    copy = tmp_path_factory.mktemp("wheel") / "tree"
    shutil.copytree(ROOT, copy, ignore=NOT_COPIED)
    shutil.copytree(ROOT / "proto", copy / "proto", dirs_exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "out"],
        cwd=copy,
        check=True,
        capture_output=True,
    )
    (wheel,) = (copy / "out").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_it_carries_the_programs_the_pocket_model_and_the_stubs(names):
    protos = [path.stem for path in (ROOT / "proto/autotune/v1").glob("*.proto")]
    stubs = {
        f"autotune/v1/{name}{ending}" for name in protos for ending in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")
    }
    needed = {
        "autotuned/__main__.py",
        "autotuned/data/pocket.gguf",
        "autotuned/engines/llamacpp/worker.py",
        "autotunectl/__main__.py",
        "autotune/py.typed",
        "autotune/v1/__init__.py",
        "autotune_shim/__main__.py",
    }
    assert stubs | needed <= names


def test_it_carries_nothing_but_the_four_packages(names):
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"autotuned", "autotunectl", "autotune", "autotune_shim"}
