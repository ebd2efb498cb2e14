"""Finds the folders of the control groups that this process is in, its own first.

``hardware.cgroup`` reads what lies in them. Both versions of control groups and machines that mix
them; inside a container the groups are those that it is shown. cgroup_namespaces(7), proc(5).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from autotuned.hardware.texts import read_text

UNIFIED = ""
"""The key of the version 2 hierarchy among memberships, which has no controller's name."""

_MOST_LEVELS = 32
_FIELDS_BEFORE_OPTIONAL = 6


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted hierarchy: the folder ``point`` shows its group ``root`` and all below."""

    root: str
    point: str
    file_system: str
    options: frozenset[str]


def parse_memberships(text: str) -> dict[str, str]:
    """Path of the process's group by controller, of /proc/self/cgroup; ``UNIFIED`` for version 2."""
    memberships = {}
    for line in text.splitlines():
        hierarchy, first_colon, rest = line.partition(":")
        controllers, second_colon, path = rest.partition(":")
        if not (first_colon and second_colon and path.startswith("/")):
            continue
        if hierarchy == "0" and not controllers:
            memberships[UNIFIED] = path
        for controller in filter(None, controllers.split(",")):
            memberships[controller] = path
    return memberships


def parse_mounts(text: str) -> list[Mount]:
    """The control group hierarchies of /proc/self/mountinfo."""
    mounts = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields, described = before.split(" "), after.split(" ")
        if not dash or len(fields) < _FIELDS_BEFORE_OPTIONAL or not described[0].startswith("cgroup"):
            continue
        mounts.append(
            Mount(
                root=_unescaped(fields[3]),
                point=_unescaped(fields[4]),
                file_system=described[0],
                options=frozenset(described[-1].split(",")),
            )
        )
    return mounts


def group_folders(path: str, mount: Mount, root: Path) -> list[Path]:
    """Folders of the group ``path`` and of the groups around it, as far as the mount shows them.

    ``root`` is the folder that "/" stands for. A group outside of what is mounted, as containers
    without a namespace for control groups name theirs, is looked for at the mount's point.
    """
    point = root / mount.point.lstrip("/")
    inner = _below(path, mount.root)
    if ".." in inner.parts or len(inner.parts) > _MOST_LEVELS:
        return []
    folders = [point / folder for folder in (inner, *inner.parents)]
    return [folder for folder in folders if _is_folder(folder)]


def find_folders(controller: str, root: Path) -> list[Path]:
    """Folders of the groups in which a controller (or ``UNIFIED``) has this process, if it has."""
    memberships = parse_memberships(read_text(root / "proc/self/cgroup") or "")
    if controller not in memberships:
        return []
    for mount in parse_mounts(read_text(root / "proc/self/mountinfo") or ""):
        shows_it = (
            mount.file_system == "cgroup2" if controller == UNIFIED else controller in mount.options
        ) and (folders := group_folders(memberships[controller], mount, root))
        if shows_it:
            return folders
    return []


def _below(path: str, mounted: str) -> PurePosixPath:
    try:
        return PurePosixPath(path).relative_to(mounted)
    except ValueError:
        return PurePosixPath()


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _unescaped(field: str) -> str:
    """Undoes how mountinfo writes space, tab, newline and backslash in octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
