"""A request that is given up stops in every phase, and leaves nothing behind."""

from __future__ import annotations

import time

import autotune
import psutil
import pytest
from autotune.v1 import chat_pb2
from autotune.v1 import inference_service_pb2 as pb

from tests.e2e.conftest import PATIENCE_SECONDS, running_daemon


def ask(text, **fields):
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text=text)])
    return pb.GenerateRequest(
        chat=chat_pb2.ChatInput(messages=[message]), sampling=pb.Sampling(temperature=0), **fields
    )


def endless():
    """A request whose answer is cut off by the context alone: nothing that waits for it is too late."""
    request = ask("Tell me a story.", context_tokens=8192)
    request.sampling.logit_bias.update(dict.fromkeys(range(8), -100.0))
    return request


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never became true: {what}"
        time.sleep(0.01)


def is_idle(client):
    snapshot = client.snapshot()
    return (snapshot.active_requests_count, snapshot.queued_requests_count) == (0, 0)


def open_handles(daemon):
    """Descriptors of the daemon and of its workers, threads apart."""
    process = psutil.Process(daemon.process.pid)
    return process.num_fds(), len(process.children(recursive=True))


@pytest.fixture(scope="module")
def loaded():
    """A daemon with the model in memory and one slot."""
    with running_daemon() as daemon, autotune.Client(daemon.address) as client:
        list(client.generate(ask("Hello")))
        yield daemon, client


def first(stream, kind):
    return next(event for event in stream if event.WhichOneof("event") == kind)


def test_in_decode(loaded):
    daemon, client = loaded
    list(client.generate(ask("Hello")))
    before = open_handles(daemon)
    for _ in range(5):
        stream = client.generate(ask("Tell me a story."))
        first(stream, "delta")
        stream.close()
    wait_until(lambda: is_idle(client), "idle")
    wait_until(lambda: open_handles(daemon) == before, "no descriptor is left open")


def test_in_prefill(loaded):
    daemon, client = loaded
    before = open_handles(daemon)
    for number in range(3):
        stream = client.generate(ask(f"{number} " + "word " * 700))
        first(stream, "started")
        stream.close()
    wait_until(lambda: is_idle(client), "idle")
    wait_until(lambda: open_handles(daemon) == before, "no descriptor is left open")


def test_in_the_queue(loaded):
    daemon, client = loaded
    before = open_handles(daemon)
    holder = client.generate(endless())
    first(holder, "delta")
    waiting = [client.generate(ask("Hello")) for _ in range(3)]
    positions = [first(stream, "queued").queued.position for stream in waiting]
    assert positions == [1, 2, 3]
    waiting[0].close()
    assert first(waiting[1], "queued").queued.position == 1
    for stream in (*waiting, holder):
        stream.close()
    wait_until(lambda: is_idle(client), "idle")
    wait_until(lambda: open_handles(daemon) == before, "no descriptor is left open")


def test_in_the_load():
    """The load goes on for whoever comes next, and the one who left holds nothing."""
    with running_daemon() as daemon, autotune.Client(daemon.address) as client:
        stream = client.generate(ask("Hello"))
        assert first(stream, "queued").queued.HasField("load_progress")
        stream.close()
        wait_until(lambda: is_idle(client), "idle")
        answer = client.chat("What is the capital of France?", temperature=0)
        assert answer.text == "The capital of France is Paris."
        assert len(client.list_running_models()) == 1
        assert open_handles(daemon)[1] == 2  # one guard, one worker


def test_a_full_queue_is_typed_and_says_when_to_come_back():
    with (
        running_daemon("--set", "queue.max_waiting=1") as daemon,
        autotune.Client(daemon.address) as client,
    ):
        holder = client.generate(endless())
        first(holder, "delta")
        waiting = client.generate(ask("Hello"))
        first(waiting, "queued")
        with pytest.raises(autotune.QueueFull) as caught:
            list(client.generate(ask("Hello")))
        assert caught.value.retry_seconds > 0
        holder.close()
        assert first(waiting, "finished").finished.usage.reply_tokens > 0
