"""``core`` and ``policy`` compute: they may import this list and nothing else."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CALCULATION = {
    "__future__", "abc", "bisect", "collections", "dataclasses", "enum", "fractions", "functools",
    "hashlib",  # a hash is a calculation
    "re", "urllib.parse",  # so is reading a text
    "itertools", "math", "pathlib", "statistics", "types", "typing",
}  # fmt: skip
ALLOWED = {
    "core": CALCULATION | {"autotuned.core"},
    "policy": CALCULATION | {"autotuned.core", "autotuned.policy"},
}
OUTSIDE_WORLD = {"open", "print", "input", "exec", "eval", "compile", "breakpoint", "__import__"}
COROUTINES_ALLOWED_IN = "core/ports.py"
MODULES = [path for floor in ALLOWED for path in sorted((ROOT / "autotuned" / floor).rglob("*.py"))]


def imported(node: ast.AST) -> list[str]:
    """Modules that a statement imports; a relative import counts as dots, which no list allows."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        package = "." * node.level + (node.module or "")
        if package == "autotuned":
            return [f"autotuned.{alias.name}" for alias in node.names]
        return [package]
    return []


def is_allowed(module: str, allowed: set[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:length]) in allowed for length in range(1, len(parts) + 1))


def impurities(source: str, floor: str, *, coroutines: bool = False) -> list[str]:
    """What in a module reaches out of it, as "line: what"."""
    found = []
    for node in ast.walk(ast.parse(source)):
        found += [
            f"{node.lineno}: imports {module}"
            for module in imported(node)
            if not is_allowed(module, ALLOWED[floor])
        ]
        if isinstance(node, ast.AsyncFunctionDef) and not coroutines:
            found.append(f"{node.lineno}: async def {node.name}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in OUTSIDE_WORLD:
            found.append(f"{node.lineno}: calls {node.func.id}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_only_computes(path):
    inside = path.relative_to(ROOT / "autotuned")
    coroutines = inside.as_posix() == COROUTINES_ALLOWED_IN
    assert impurities(path.read_text(), inside.parts[0], coroutines=coroutines) == []


@pytest.mark.parametrize("floor", ALLOWED)
def test_there_is_something_to_examine(floor):
    assert [path for path in MODULES if path.parent.name == floor and path.name != "__init__.py"]


@pytest.mark.parametrize(
    ("source", "floor", "found"),
    [
        ("import time", "policy", "1: imports time"),
        ("import os.path as p", "core", "1: imports os.path"),
        ("from collections.abc import Mapping", "core", None),
        ("from autotuned.core.plan import Plan", "policy", None),
        ("from autotuned.policy.kv import cell_bytes", "core", "1: imports autotuned.policy.kv"),
        ("from autotuned import services", "policy", "1: imports autotuned.services"),
        ("import autotuned", "policy", "1: imports autotuned"),
        ("from autotuned.core_of_evil import x", "core", "1: imports autotuned.core_of_evil"),
        ("from . import kv", "policy", "1: imports ."),
        ("def f():\n    import random", "policy", "2: imports random"),
        ("async def f(): ...", "policy", "1: async def f"),
        ("def f(path):\n    return open(path)", "core", "2: calls open"),
    ],
)
def test_the_examination_sees(source, floor, found):
    assert impurities(source, floor) == ([found] if found else [])
