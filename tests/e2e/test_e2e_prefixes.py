"""A long conversation with a real daemon: its KV state outlives a stop, a kill, an unload and a growth."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import autotune
import psutil
import pytest

from tests.e2e.conftest import PATIENCE_SECONDS, RunningDaemon, short_home, spawn_daemon

SYSTEM = {"role": "system", "content": "".join(f"Rule {n}: be brief and kind. " for n in range(80))}
QUESTION = {"role": "user", "content": "What is the capital of France?"}
FOLLOW_UP = {"role": "user", "content": "And of Italy?"}
FAST = ("--set", "prefixes.idle_seconds=0.1")
# What a short turn and the template around it may cost.
FEW_TOKENS = 80


@contextmanager
def daemon_in(home: Path) -> Iterator[RunningDaemon]:
    daemon = spawn_daemon(home, *FAST)
    try:
        yield daemon
    finally:
        daemon.stop()


@pytest.fixture
def home() -> Iterator[Path]:
    with short_home() as folder:
        yield folder


def ask(daemon: RunningDaemon, *messages, **options) -> autotune.Reply:
    with autotune.Client(daemon.address) as client:
        return client.chat(list(messages), temperature=0, max_reply_tokens=16, **options)


def evaluated(reply: autotune.Reply) -> int:
    return reply.usage.prompt_tokens - reply.usage.cached_tokens


def said(reply: autotune.Reply) -> dict[str, str]:
    return {"role": "assistant", "content": reply.text}


def files(home: Path) -> list[Path]:
    return list((home / "data" / "prefixes").iterdir())


def wait_for_checkpoint(daemon: RunningDaemon) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    with autotune.Client(daemon.address) as client:
        while not client.snapshot().saved_prefixes_count:
            assert time.monotonic() < deadline, daemon.words()
            time.sleep(0.02)


def begin(daemon: RunningDaemon) -> autotune.Reply:
    first = ask(daemon, SYSTEM, QUESTION)
    assert first.usage.cached_tokens == 0
    assert first.usage.prompt_tokens > 500
    return first


def test_a_stop_and_a_start_cost_no_prefill(home):
    with daemon_in(home) as daemon:
        first = begin(daemon)
    assert len(files(home)) == 1
    with daemon_in(home) as daemon:
        assert evaluated(ask(daemon, SYSTEM, QUESTION, said(first), FOLLOW_UP)) < FEW_TOKENS


def test_a_kill_costs_what_came_after_the_last_checkpoint_and_no_more(home):
    daemon = spawn_daemon(home, *FAST)
    family = psutil.Process(daemon.process.pid)
    first = begin(daemon)
    wait_for_checkpoint(daemon)
    children = family.children(recursive=True)
    daemon.process.kill()
    daemon.process.wait()
    (home / "data" / "prefixes" / "half-written.kv").write_bytes(b"state")
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_SECONDS)
    assert not alive
    with daemon_in(home) as daemon:
        assert evaluated(ask(daemon, SYSTEM, QUESTION, said(first), FOLLOW_UP)) < FEW_TOKENS
        assert "strange files are removed" in daemon.words()
        assert not (home / "data" / "prefixes" / "half-written.kv").exists()


def test_an_unload_and_a_growth_cost_no_prefill(home):
    with daemon_in(home) as daemon:
        first = begin(daemon)
        with autotune.Client(daemon.address) as client:
            client.unload_model("pocket")
        second = ask(daemon, SYSTEM, QUESTION, said(first), FOLLOW_UP)
        assert evaluated(second) < FEW_TOKENS
        grown = ask(
            daemon, SYSTEM, QUESTION, said(first), FOLLOW_UP, said(second), QUESTION, context_tokens=8192
        )
        assert grown.plan.shape.context_tokens == 8192
        assert evaluated(grown) < 2 * FEW_TOKENS


def test_what_was_said_is_for_its_owner_alone_and_can_be_deleted(home):
    with daemon_in(home) as daemon:
        begin(daemon)
        wait_for_checkpoint(daemon)
        (path,) = files(home)
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        size = path.stat().st_size
        with autotune.Client(daemon.address) as client:
            deleted = client.delete_prefixes("pocket")
            assert (deleted.deleted_count, deleted.freed_bytes) == (1, size)
            assert client.snapshot().saved_prefixes_bytes == 0
        assert files(home) == []
    assert files(home) == []  # the stop did not write it again


def test_what_is_not_to_be_stored_leaves_no_file(home):
    with daemon_in(home) as daemon:
        ask(daemon, SYSTEM, QUESTION, store=False)
    assert files(home) == []
