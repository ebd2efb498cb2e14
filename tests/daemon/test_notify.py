"""sd_notify against a real datagram socket."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotuned.notify import notify


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="at-") as folder:
        yield Path(folder) / "notify"


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(5)
        yield receiver


def test_the_manager_hears_each_state(manager: socket.socket, path: Path):
    manager.bind(str(path))
    notify("READY=1", {"NOTIFY_SOCKET": str(path)})
    notify("STATUS=größe \udce9", {"NOTIFY_SOCKET": str(path)})
    assert manager.recv(100) == b"READY=1"
    assert manager.recv(100) == "STATUS=größe ?".encode()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has the abstract name space")
def test_an_abstract_socket(manager: socket.socket):
    manager.bind("\0autotune-test-notify")
    notify("STOPPING=1", {"NOTIFY_SOCKET": "@autotune-test-notify"})
    assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize(
    "address", [None, "", "/nowhere/at/all", "relative", "/" + "x" * 200, "vsock:2:1234"]
)
def test_nobody_listens(address: str | None):
    notify("READY=1", {} if address is None else {"NOTIFY_SOCKET": address})


def test_a_manager_that_does_not_read_is_not_waited_for(
    manager: socket.socket, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("autotuned.notify._SEND_SECONDS", 0.01)
    manager.bind(str(path))
    for _ in range(2000):
        notify("STATUS=" + "x" * 4000, {"NOTIFY_SOCKET": str(path)})
        if caplog.records:
            break
    assert "was not told" in caplog.text
