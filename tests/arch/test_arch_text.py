"""What no file of the project says, whatever language it is written in."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE_BY_TOOLS = {"build", "dist", "node_modules", "__pycache__", "v1"}
# Patterns and examples are written so that this file does not say the words either.
REGISTRIES = [
    ".".join(parts)
    for parts in [
        ("pypi", "org"),
        ("python" + "hosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
    ]
]
FORBIDDEN = {
    "a package registry": re.compile("|".join(map(re.escape, REGISTRIES))),
    "a developer's machine": re.compile(r"(?<![\w.])/(?:root|home/[\w.-]+|Users/[\w.-]+)/"),
    "work left undone": re.compile(r"\b(?:TOD[O]|FIXM[E])\b"),
}


def project_files() -> list[Path]:
    """Files under version control; outside of a clone, all files that are not made by tools."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        paths = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not is_made(path.relative_to(ROOT))]
    return sorted(path for path in paths if path.is_file())


def is_made(path: Path) -> bool:
    """Whether a path lies in a folder of a tool: a hidden one, or one with such a name."""
    return any(folder in MADE_BY_TOOLS or folder.startswith(".") for folder in path.parts[:-1])


def text_of(path: Path) -> str:
    """The text of a file; empty for one that is not text."""
    content = path.read_bytes()
    return "" if b"\0" in content else content.decode(errors="replace")


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in project_files()
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if FORBIDDEN[what].search(line)
    ]
    assert found == []


def test_there_is_something_to_examine():
    assert ROOT / "pyproject.toml" in project_files()


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a package registry", f"https://{REGISTRIES[0]}/simple"),
        ("a developer's machine", "see |root|src".replace("|", "/")),
        ("a developer's machine", "|home|ada|src".replace("|", "/")),
        ("work left undone", "# todo: later".upper()),
    ],
)
def test_the_examination_sees(what, line):
    assert FORBIDDEN[what].search(line)


@pytest.mark.parametrize("line", ["$HOME/models", "docs/home/page", "the root/ folder", "a todo list"])
def test_the_examination_overlooks(line):
    assert not any(pattern.search(line) for pattern in FORBIDDEN.values())
