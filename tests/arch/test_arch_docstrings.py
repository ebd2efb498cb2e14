"""Every module says what it is; every package has a place to say it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("autotuned", "autotunectl", "clients/python/autotune", "clients/shim/autotune_shim")
GENERATED = ROOT / "clients/python/autotune/v1"
MODULES = [
    path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if not path.is_relative_to(GENERATED)
]
FOLDERS = sorted({path.parent for path in MODULES})


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, "a module docstring says what it owns, who calls it, and its invariant"
    assert docstring.splitlines()[0].endswith((".", ":", "?")), "its first line is a sentence"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_of_modules_is_a_package(folder):
    assert (folder / "__init__.py").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_there_is_something_to_examine(package):
    assert ROOT / package in FOLDERS
