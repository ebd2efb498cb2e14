"""The runtime folder and the lock: who may be in it, and that there is one of us."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from autotuned.runtime import (
    LOCK_NAME,
    LONGEST_SOCKET_NAME_BYTES,
    AlreadyRunning,
    InstanceLock,
    RuntimeFolderUnusable,
    prepare_runtime_folder,
)

OTHER_USER = 12345


@pytest.fixture
def base() -> Iterator[Path]:
    """Short enough for sockets, which pytest's own folders are not on every system."""
    with tempfile.TemporaryDirectory(prefix="at-") as folder:
        yield Path(folder)


@pytest.fixture
def runtime(base: Path) -> Path:
    prepare_runtime_folder(base / "run")
    return base / "run"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(path: Path) -> str:
    with pytest.raises(RuntimeFolderUnusable) as caught:
        prepare_runtime_folder(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def listen(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)
    return server


def test_a_new_folder_and_its_parents_are_private(base: Path):
    before = os.umask(0)
    try:
        prepare_runtime_folder(base / "a" / "b c" / "ü")
    finally:
        os.umask(before)
    assert {mode(base / "a"), mode(base / "a" / "b c"), mode(base / "a" / "b c" / "ü")} == {0o700}
    prepare_runtime_folder(base / "a" / "b c" / "ü")


def test_an_open_folder_of_our_own_is_closed(base: Path):
    for name, content in (("empty", ()), ("used", (LOCK_NAME, "autotuned.sock"))):
        folder = base / name
        folder.mkdir()
        for file in content:
            (folder / file).touch()
        folder.chmod(0o777)
        prepare_runtime_folder(folder)
        assert mode(folder) == 0o700


def test_an_open_folder_with_other_files_is_refused_and_stays_as_it_is(base: Path):
    base.chmod(0o1777)
    (base / "somebody's").touch()
    assert "holds other files" in refusal(base)
    assert mode(base) == 0o1777


def test_a_folder_of_somebody_else(base: Path):
    if os.geteuid() == 0:
        os.chown(base, OTHER_USER, OTHER_USER)
        folder = base
    else:
        folder = Path("/")
    before = mode(folder)
    assert "belongs to another user" in refusal(folder)
    assert mode(folder) == before


def test_a_link_to_a_folder_of_somebody_else(base: Path):
    target = Path("/")
    if os.geteuid() == 0:
        target = base / "theirs"
        target.mkdir()
        os.chown(target, OTHER_USER, OTHER_USER)
    (base / "link").symlink_to(target)
    assert "belongs to another user" in refusal(base / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_a_link_of_somebody_else_to_a_folder_of_ours(base: Path):
    (base / "ours").mkdir()
    (base / "link").symlink_to(base / "ours")
    os.chown(base / "link", OTHER_USER, OTHER_USER, follow_symlinks=False)
    assert "belongs to another user" in refusal(base / "link")


def test_a_link_of_ours_to_a_folder_of_ours(base: Path):
    (base / "ours").mkdir()
    (base / "link").symlink_to(base / "ours")
    prepare_runtime_folder(base / "link")
    assert mode(base / "ours") == 0o700


def test_what_is_no_folder(base: Path):
    (base / "file").touch()
    assert "Not a directory" in refusal(base / "file")
    refusal(base / "file" / "below")
    (base / "nowhere").symlink_to(base / "missing")
    refusal(base / "nowhere")


def test_a_folder_that_cannot_be_made(read_only_folder: Path, unprivileged):
    with unprivileged():
        assert "Permission denied" in refusal(read_only_folder / "run")


def test_a_folder_of_our_own_that_we_may_not_write_to_is_mended(base: Path):
    base.chmod(0o500)
    prepare_runtime_folder(base)
    assert mode(base) == 0o700


READ_ONLY = """
import sys
from pathlib import Path
from autotuned.runtime import RuntimeFolderUnusable, prepare_runtime_folder
try:
    prepare_runtime_folder(Path(sys.argv[1]))
except RuntimeFolderUnusable as error:
    print(error)
"""


def test_a_read_only_disk(base: Path, run_on_disk):
    assert "is on a read-only disk" in run_on_disk(READ_ONLY, base, "ro,mode=700")


def test_a_path_that_is_too_long_for_sockets(base: Path):
    room_bytes = 103 - LONGEST_SOCKET_NAME_BYTES - 1
    name = "x" * (room_bytes - len(os.fsencode(base)) - 1)
    prepare_runtime_folder(base / name)
    listen(base / name / ("s" * LONGEST_SOCKET_NAME_BYTES)).close()
    sentence = refusal(base / (name + "y"))
    assert f"{room_bytes + 1} bytes" in sentence
    assert "AUTOTUNE_RUNTIME_DIR" in sentence
    assert not (base / (name + "y")).exists()


def test_the_lock_names_its_holder(runtime: Path):
    with InstanceLock(runtime):
        assert mode(runtime / LOCK_NAME) == 0o600
        with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}") as caught:
            InstanceLock(runtime).__enter__()
        assert caught.value.process_id == os.getpid()
    with InstanceLock(runtime):
        pass


def test_a_refused_lock_leaks_no_descriptor(runtime: Path):
    with InstanceLock(runtime):
        before = psutil.Process().num_fds()
        for _ in range(3):
            with pytest.raises(AlreadyRunning):
                InstanceLock(runtime).__enter__()
        assert psutil.Process().num_fds() == before


def test_two_folders_two_daemons(base: Path):
    for name in ("a", "b"):
        prepare_runtime_folder(base / name)
    with InstanceLock(base / "a"), InstanceLock(base / "b"):
        pass


HOLDER = """
import sys, time
from pathlib import Path
from autotuned.runtime import InstanceLock
with InstanceLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_holder_leaves_no_lock_and_its_sockets_are_cleared(runtime: Path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, runtime], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(AlreadyRunning) as caught:
            InstanceLock(runtime).__enter__()
        assert caught.value.process_id == holder.pid
        holder.send_signal(signal.SIGKILL)
    for name in ("autotuned.sock", "w-1a2b.sock", "other.sock"):
        listen(runtime / name).close()
    (runtime / "w-file.sock").write_text("no socket")
    with InstanceLock(runtime):
        assert sorted(f.name for f in runtime.iterdir()) == [LOCK_NAME, "other.sock", "w-file.sock"]


def test_a_daemon_whose_lock_file_was_cleaned_away_keeps_its_socket(runtime: Path):
    with InstanceLock(runtime), listen(runtime / "autotuned.sock"):
        (runtime / LOCK_NAME).unlink()
        with pytest.raises(AlreadyRunning, match="another process"):
            InstanceLock(runtime).__enter__()
        assert (runtime / "autotuned.sock").is_socket()


def test_a_lock_that_cannot_be_taken(runtime: Path):
    (runtime / LOCK_NAME).symlink_to(runtime / "elsewhere")
    with pytest.raises(RuntimeFolderUnusable, match="cannot be taken"):
        InstanceLock(runtime).__enter__()
    assert not (runtime / "elsewhere").exists()


def test_a_percent_sign_in_the_path_is_refused_because_addresses_would_read_it_as_an_escape(tmp_path):
    folder = tmp_path / "a%20b"
    with pytest.raises(RuntimeFolderUnusable) as refusal:
        prepare_runtime_folder(folder)
    assert str(refusal.value) == (
        f"The runtime folder {folder} has a percent sign in its path, which the addresses of sockets cannot have; "
        "set AUTOTUNE_RUNTIME_DIR to another one."
    )
    assert not folder.exists()
