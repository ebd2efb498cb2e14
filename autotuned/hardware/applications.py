"""Groups processes into the applications that a person could close. Pure.

``hardware.processes`` brings them. Invariant: what runs the session or the daemon is never among them: the
daemon, its ancestors and all below it, shells, engines whose models the daemon shows anyway, and what a
desktop cannot be without.

An application is a process that one of these started, with everything that it started in turn: a language
server goes with its editor, but a program in a terminal stands for itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import PurePosixPath

from autotuned.core.hardware import Application

LEAST_BYTES = 50 << 20
MOST_APPLICATIONS = 10

_OWN = ("autotune",)
_ENGINES = ("ollama", "llama-server", "lm studio", "lm-studio", "llmster", "mlx_lm")
_SHELLS = ("bash", "csh", "dash", "fish", "ksh", "nu", "pwsh", "sh", "tcsh", "xonsh", "zsh")
_AROUND_PROGRAMS = (
    "bwrap", "byobu", "dtach", "firejail", "flatpak", "login", "screen", "snap", "sshd", "su", "sudo", "tmux",
    "tmux: server", "xdg-dbus-proxy", "zellij",
)  # fmt: skip
"""What keeps or starts other programs: each of these stands for itself."""

_SESSION = (
    "(sd-pam)", "at-spi", "cinnamon", "cosmic-", "dbus-", "dconf-", "evolution-", "fcitx", "gcr-", "gdm",
    "gnome-keyring", "gnome-session", "gnome-shell", "goa-", "gpg-agent", "gsd-", "gvfs", "hyprland", "i3",
    "ibus", "init", "kactivitymanagerd", "kded", "kglobalaccel", "ksmserver", "kwin", "launchd", "lightdm",
    "localsearch", "lxqt-", "mate-", "mutter", "niri", "pipewire", "plasma", "polkit", "pulseaudio", "sddm",
    "snapd", "ssh-agent", "sway", "systemd", "tracker-", "wayland", "weston", "wireplumber", "xdg-", "xfce4-",
    "xfdesktop", "xfwm4", "xorg", "xsettingsd", "xwayland",
)  # fmt: skip

_MACOS_APPS = ("/Applications/", "/System/Applications/", "/System/Volumes/Preboot/Cryptexes/App/")
_SYSTEM_FOLDERS = ("/System/", "/Library/Apple/", "/sbin/", "/usr/libexec/", "/usr/sbin/")
"""Programs that nobody starts by hand, on macOS and on most distributions."""

_WEB_CONTENT = "com.apple.WebKit."
_BUNDLE = re.compile(r"/([^/]+)\.app/")
_INTERPRETERS = re.compile(r"(?:python|pypy|perl|ruby|node|java|lua)[\d.]*", re.ASCII)
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of this user. ``program`` is the path of its program, or its short name where that is hidden.

    ``memory_bytes`` are its own pages; ``arguments`` may be left out of what is no interpreter.
    """

    process_id: int
    parent_id: int
    program: str
    memory_bytes: int
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What a person calls it: the bundle of macOS, the script of an interpreter, else the program."""
        if bundle := _BUNDLE.search(f"{self.program}/"):
            return bundle[1]
        if _WEB_CONTENT in self.program:
            return "Web pages (WebKit)"
        name = PurePosixPath(self.program.removesuffix(_DELETED)).name or self.program
        return _script(self.arguments) or name if _INTERPRETERS.fullmatch(name) else name

    @property
    def is_interpreter(self) -> bool:
        """Whether its arguments say what it is."""
        return bool(_INTERPRETERS.fullmatch(PurePosixPath(self.program.removesuffix(_DELETED)).name))


def applications(processes: Iterable[Process], own_id: int) -> tuple[Application, ...]:
    """The largest applications, largest first; ``own_id`` is the process of the daemon."""
    by_id = {process.process_id: process for process in processes}
    kept = {process.process_id for process in by_id.values() if is_kept(process)}
    own = by_id.get(own_id)
    own_line = (own_id, *(ancestor.process_id for ancestor in (_ancestors(own, by_id) if own else ())))
    found: dict[str, list[int]] = defaultdict(list)
    for process in by_id.values():
        root = _root(process, by_id, kept, own_line)
        if root is not None:
            found[root.name].append(process.memory_bytes)
    groups = [
        Application(name=name, processes_count=len(sizes), memory_bytes=sum(sizes))
        for name, sizes in found.items()
        if sum(sizes) >= LEAST_BYTES
    ]
    groups.sort(key=lambda group: (-group.memory_bytes, group.name))
    return tuple(groups[:MOST_APPLICATIONS])


def is_kept(process: Process) -> bool:
    """Whether nobody would close it to gain memory, by what it is."""
    program, name = process.program, process.name.lower()
    if program.startswith(_SYSTEM_FOLDERS) and not program.startswith(_MACOS_APPS):
        return _WEB_CONTENT not in program
    shell = name.removeprefix("-")  # so a login shell calls itself
    return (
        shell in _SHELLS
        or name in _AROUND_PROGRAMS
        or name.startswith(_SESSION)
        or name.startswith(_OWN)
        or name.startswith(_ENGINES)
    )


def _root(
    process: Process, by_id: Mapping[int, Process], kept: AbstractSet[int], own_line: tuple[int, ...]
) -> Process | None:
    """The application that a process belongs to; None for what is kept, and what closes with what is kept."""
    if process.process_id in kept or process.process_id in own_line:
        return None
    root = process
    for ancestor in _ancestors(process, by_id):
        if ancestor.process_id == own_line[0] or _is_ours(ancestor):
            return None
        if ancestor.process_id in kept:
            break
        root = ancestor
    return None if root.process_id in own_line else root


def _is_ours(process: Process) -> bool:
    return process.name.lower().startswith((*_OWN, *_ENGINES))


def _ancestors(process: Process, by_id: Mapping[int, Process]) -> Iterator[Process]:
    """From its parent upwards; a table that was read while processes ended may have a ring in it."""
    seen = {process.process_id}
    parent = by_id.get(process.parent_id)
    while parent is not None and parent.process_id not in seen:
        seen.add(parent.process_id)
        yield parent
        parent = by_id.get(parent.parent_id)


def _script(arguments: tuple[str, ...]) -> str:
    """The module or the file that an interpreter runs; "" where its arguments do not say."""
    rest = list(arguments[1:])
    while rest:
        argument = rest.pop(0)
        if argument in {"-m", "-jar"} and rest:
            return PurePosixPath(rest[0]).name
        if not argument.startswith("-"):
            return PurePosixPath(argument).name
    return ""
