"""Which applications a person could close, from processes as systems list them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.hardware import Application
from autotuned.hardware.applications import MOST_APPLICATIONS, Process, applications, is_kept
from autotuned.hardware.processes import parse_stat, parse_statm, read_linux, read_macos

MIB = 1 << 20
DAEMON = 900


def process(number: int, parent: int, program: str, mib: int = 0, *arguments: str) -> Process:
    return Process(
        process_id=number,
        parent_id=parent,
        program=program,
        memory_bytes=mib * MIB,
        arguments=(program, *arguments) if arguments else (),
    )


DESKTOP = [
    process(700, 1, "/usr/lib/systemd/systemd", 12),
    process(701, 700, "/usr/bin/gnome-shell", 420),
    process(702, 701, "/usr/bin/Xwayland", 90),
    process(703, 700, "/usr/libexec/gnome-terminal-server", 60),
    process(710, 701, "/opt/google/chrome/chrome", 310),
    process(711, 710, "/opt/google/chrome/chrome", 55),
    process(712, 711, "/opt/google/chrome/chrome", 640),
    process(713, 710, "/opt/google/chrome/chrome_crashpad_handler", 2),
    process(720, 701, "/usr/share/code/code", 180),
    process(721, 720, "/usr/share/code/code", 400),
    process(722, 721, "/usr/bin/clangd", 900),
    process(730, 703, "/usr/bin/zsh", 8),
    process(731, 730, "/usr/bin/python3.12", 700, "-m", "http.server"),
    process(732, 730, "/usr/bin/nvim", 51),
    process(735, 700, "/usr/bin/bwrap", 1),
    process(736, 735, "/usr/bin/bwrap", 1),
    process(737, 736, "/app/lib/thunderbird/thunderbird", 350),
    process(740, 700, "/usr/bin/ollama", 130),
    process(741, 740, "/usr/bin/ollama", 5000),
    process(DAEMON, 700, "/usr/bin/python3.12", 55, "-m", "autotuned"),
    process(901, DAEMON, "/usr/bin/python3.12", 9, "guard.py"),
    process(902, 901, "/usr/bin/python3.12", 4000, "worker.py"),
    process(910, 730, "/usr/bin/python3.12", 60, "/usr/bin/autotunectl", "chat"),
    process(950, 700, "/usr/bin/tiny", 49),
]


def test_a_desktop_of_linux():
    assert applications(DESKTOP, DAEMON) == (
        Application(name="code", processes_count=3, memory_bytes=1480 * MIB),
        Application(name="chrome", processes_count=4, memory_bytes=1007 * MIB),
        Application(name="http.server", processes_count=1, memory_bytes=700 * MIB),
        Application(name="thunderbird", processes_count=1, memory_bytes=350 * MIB),
        Application(name="nvim", processes_count=1, memory_bytes=51 * MIB),
    )


def test_what_the_daemon_was_started_in_stays():
    started_in_editor = [
        process(720, 1, "/usr/share/code/code", 180),
        process(721, 720, "/usr/share/code/code", 400),
        process(730, 720, "/usr/bin/zsh", 8),
        process(DAEMON, 730, "/usr/bin/python3.12", 55, "-m", "autotuned"),
        process(740, 1, "/usr/lib/firefox/firefox", 800),
    ]
    assert [found.name for found in applications(started_in_editor, DAEMON)] == ["firefox"]


SAFARI = "/System/Volumes/Preboot/Cryptexes/App/System/Applications/Safari.app/Contents/MacOS/Safari"
WEB = (
    "/System/Library/Frameworks/WebKit.framework/Versions/A/XPCServices/com.apple.WebKit.WebContent.xpc"
    "/Contents/MacOS/com.apple.WebKit.WebContent"
)
SLACK = "/Applications/Slack.app/Contents"
MAC = [
    process(300, 1, "/System/Library/CoreServices/Finder.app/Contents/MacOS/Finder", 210),
    process(301, 1, "/System/Library/CoreServices/Dock.app/Contents/MacOS/Dock", 120),
    process(302, 1, "/usr/libexec/trustd", 60),
    process(310, 1, SAFARI, 300),
    process(311, 1, WEB, 700),
    process(312, 1, WEB, 200),
    process(320, 1, f"{SLACK}/MacOS/Slack", 190),
    process(321, 320, f"{SLACK}/Frameworks/Slack Helper (Renderer).app/Contents/MacOS/Slack Helper", 410),
    process(330, 1, "/System/Applications/Mail.app/Contents/MacOS/Mail", 260),
    process(340, 1, "/Applications/LM Studio.app/Contents/MacOS/LM Studio", 9000),
    process(341, 1, "/Applications/Ollama.app/Contents/Resources/ollama", 6000),
    process(350, 1, "/System/Applications/Utilities/Terminal.app/Contents/MacOS/Terminal", 130),
    process(351, 350, "/bin/zsh", 60),
    process(DAEMON, 351, "/opt/homebrew/bin/python3.13", 55, "/opt/homebrew/bin/autotuned"),
]


def test_a_mac():
    # Terminal is what this daemon was started in.
    assert applications(MAC, DAEMON) == (
        Application(name="Web pages (WebKit)", processes_count=2, memory_bytes=900 * MIB),
        Application(name="Slack", processes_count=2, memory_bytes=600 * MIB),
        Application(name="Safari", processes_count=1, memory_bytes=300 * MIB),
        Application(name="Mail", processes_count=1, memory_bytes=260 * MIB),
    )


def test_only_the_largest_are_told():
    many = [process(number + 100, 1, f"/usr/bin/app{number:02}", 50 + number) for number in range(30)]
    found = applications(many, DAEMON)
    assert len(found) == MOST_APPLICATIONS
    assert found[0] == Application(name="app29", processes_count=1, memory_bytes=79 * MIB)


@pytest.mark.parametrize(
    ("program", "arguments", "name"),
    [
        ("/usr/bin/python3.12", ("/opt/a/train.py", "--epochs", "3"), "train.py"),
        ("/usr/bin/python3", ("-u", "-m", "jupyterlab"), "jupyterlab"),
        ("/usr/bin/java", ("-Xmx4g", "-jar", "/opt/minecraft.jar"), "minecraft.jar"),
        ("/usr/bin/node", (), "node"),
        ("/usr/bin/python3", ("-", ""), "python3"),
        ("/usr/lib/firefox/firefox (deleted)", (), "firefox"),
        ("Web Content", (), "Web Content"),
        ("/usr/bin/pythonista", ("x",), "pythonista"),
    ],
)
def test_names(program, arguments, name):
    assert process(1, 0, program, 0, *arguments).name == name


@pytest.mark.parametrize(
    "program",
    [
        "-bash", "/bin/zsh", "/usr/bin/tmux", "/usr/lib/systemd/systemd", "/usr/bin/dbus-daemon", "(sd-pam)",
        "/usr/bin/kwin_wayland", "/usr/bin/pipewire-pulse", "/sbin/launchd", "/usr/sbin/distnoted",
        "/System/Library/CoreServices/WindowManager.app/Contents/MacOS/WindowManager", "autotuned",
        "/usr/bin/llama-server",
    ],
)  # fmt: skip
def test_what_nobody_would_close(program):
    assert is_kept(process(5, 1, program, 500))


def test_a_table_with_a_ring_in_it():
    ring = [process(5, 6, "/usr/bin/a", 60), process(6, 5, "/usr/bin/b", 60)]
    assert sum(found.processes_count for found in applications(ring, DAEMON)) == 2


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("4242 (Web Content) S 710 700 700 0 -1 4194304\n", ("Web Content", 710)),
        ("7 (a) (b) c) R 1 7 7\n", ("a) (b) c", 1)),
        ("", None),
        ("7 (a", None),
        ("7 a) S 1", None),
        ("7 (a) S", None),
        ("7 (a) S x 7", None),
    ],
)
def test_stat(text, known):
    assert parse_stat(text) == known


@pytest.mark.parametrize(
    ("text", "pages"), [("9000 600 200 1 0 5 0\n", 400), ("1 2 3", 0), ("", 0), ("1 2", 0), ("a b c", 0)]
)
def test_statm(text, pages):
    assert parse_statm(text) == pages


@given(st.text())
def test_nonsense_is_no_process(text):
    parse_statm(text)
    parse_stat(text)


def test_processes_of_a_recorded_machine(make_machine, tmp_path):
    root = make_machine(
        {
            "proc/41/stat": "41 (python3) S 1 41 41 0 -1 4194304\n",
            "proc/41/statm": "90000 60000 20000 1 0 5 0\n",
            "proc/41/cmdline": "python3\0-m\0jupyterlab\0",
            "proc/42/stat": "42 (hidden) S 41 41 41 0 -1 4194304\n",
            "proc/42/statm": "9 6 2 1 0 5 0\n",
            "proc/43/status": "it has ended meanwhile\n",
            "proc/self/stat": "no number\n",
        }
    )
    (tmp_path / "proc/41/exe").symlink_to("/usr/bin/python3.12")
    page = os.sysconf("SC_PAGE_SIZE")
    found = sorted(read_linux(root, os.getuid()), key=lambda process: process.process_id)
    assert [(one.name, one.parent_id, one.memory_bytes // page) for one in found] == [
        ("jupyterlab", 1, 40_000),
        ("hidden", 41, 4),
    ]
    assert read_linux(root, os.getuid() + 1) == []
    assert read_linux(tmp_path / "nowhere", os.getuid()) == []


def test_memory_of_a_real_process():
    # Holds 96 MiB that it wrote, and says so; it is a child of this one, so no application of its daemon.
    code = "import sys; held = bytearray(b'x') * (96 << 20); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        read = read_macos if sys.platform == "darwin" else lambda user: read_linux(Path("/"), user)
        by_id = {process.process_id: process for process in read(os.getuid())}
        found = by_id[child.pid]
        assert child.stdin is not None
        child.stdin.close()
    assert found.parent_id == os.getpid()
    assert 96 * MIB <= found.memory_bytes <= 160 * MIB
    assert [one for one in applications([found], os.getpid()) if one.processes_count] == [
        Application(name=found.name, processes_count=1, memory_bytes=found.memory_bytes)
    ]
    assert applications(by_id.values(), os.getpid()) == applications(
        [one for one in by_id.values() if one.process_id != child.pid], os.getpid()
    )


def test_processes_by_psutil_are_those_of_this_user():
    found = {process.process_id: process for process in read_macos(os.getuid())}
    assert found[os.getpid()].parent_id == psutil.Process().ppid()
    assert found[os.getpid()].memory_bytes > MIB
