"""Start, stop, crash: what is true of the machine before, while and after."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time

import autotune
import psutil
import pytest
from autotune.v1 import chat_pb2
from autotune.v1 import inference_service_pb2 as pb

from tests.e2e.conftest import (
    PATIENCE_SECONDS,
    make_environment,
    running_daemon,
    short_home,
    spawn_daemon,
)

STORY = pb.GenerateRequest(
    chat=chat_pb2.ChatInput(
        messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text="Tell me a story.")])]
    ),
    sampling=pb.Sampling(temperature=0),
)
# Cut off by the context alone: whoever kills its worker is not too late.
ENDLESS = pb.GenerateRequest(
    chat=STORY.chat,
    sampling=pb.Sampling(temperature=0, logit_bias=dict.fromkeys(range(8), -100.0)),
    context_tokens=8192,
)


def run_daemon(environment, *arguments):
    """A daemon that is expected to refuse; returns its status and its words."""
    done = subprocess.run(
        [sys.executable, "-m", "autotuned", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return done.returncode, done.stderr


def wait_for_end(processes):
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)
    assert not alive, f"still there: {alive}"


def worker_of(client):
    return psutil.Process(client.list_running_models()[0].process_id)


def test_socket_and_folders_belong_to_their_owner_alone(daemon):
    assert stat.S_IMODE(daemon.runtime.stat().st_mode) == 0o700
    for path in daemon.runtime.iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path.name} is {mode:o}"


def test_a_second_daemon_refuses_and_the_first_goes_on(daemon, client):
    status, words = run_daemon(daemon.environment)
    assert status == 3
    assert words.count("\n") == 1
    assert str(daemon.process.pid) in words
    assert client.info().process_id == daemon.process.pid


def test_a_stale_socket_of_a_killed_daemon_is_cleaned_and_its_worker_is_gone():
    with short_home() as home:
        killed = spawn_daemon(home)
        with autotune.Client(killed.address) as client:
            client.chat("Hello", temperature=0)
            family = [worker_of(client), *psutil.Process(killed.process.pid).children(recursive=True)]
        killed.process.kill()
        killed.process.wait()
        wait_for_end(family)
        assert (home / "run" / "autotuned.sock").exists()
        again = spawn_daemon(home)
        with autotune.Client(again.address) as client:
            assert client.chat("What is the capital of France?", temperature=0).text.endswith("Paris.")
        assert again.stop() == 0
        assert {path.name for path in (home / "run").iterdir()} <= {"autotuned.lock"}


def test_sigterm_lets_a_running_answer_finish(own_daemon):
    with autotune.Client(own_daemon.address) as client:
        stream = client.generate(STORY)
        kinds = [next(stream).WhichOneof("event")]
        while kinds[-1] != "delta":
            kinds.append(next(stream).WhichOneof("event"))
        own_daemon.process.send_signal(signal.SIGTERM)
        kinds += [event.WhichOneof("event") for event in stream]
    assert kinds[-1] == "finished"
    assert own_daemon.process.wait(PATIENCE_SECONDS) == 0


def test_new_work_is_refused_while_the_daemon_drains():
    with running_daemon("--set", "daemon.drain_seconds=5") as daemon:
        with autotune.Client(daemon.address) as client:
            stream = client.generate(STORY)
            while next(stream).WhichOneof("event") != "delta":
                pass
            client.shutdown()
            with pytest.raises((autotune.ShuttingDown, autotune.DaemonUnreachable)):
                client.chat("Hello")
            stream.close()
        assert daemon.process.wait(PATIENCE_SECONDS) == 0


def test_a_second_signal_ends_it_at_once_and_no_worker_stays():
    with running_daemon("--set", "daemon.drain_seconds=60") as daemon:
        with autotune.Client(daemon.address) as client:
            client.chat("Hello", temperature=0)
            worker = worker_of(client)
            os.kill(worker.pid, signal.SIGSTOP)  # the answer will not end by itself
            stream = client.generate(STORY)
            call = iter(stream)
            daemon.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while "stopping" not in daemon.words():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(PATIENCE_SECONDS) != 0
            del call
        wait_for_end([worker])


def test_a_killed_worker_fails_its_request_and_the_next_gets_a_fresh_one(own_daemon):
    with autotune.Client(own_daemon.address) as client:
        for _ in range(2):
            stream = client.generate(ENDLESS)
            while next(stream).WhichOneof("event") != "delta":
                pass
            worker = worker_of(client)
            worker.kill()
            with pytest.raises(autotune.EngineUnreachable):
                list(stream)
        assert client.chat("What is the capital of France?", temperature=0).text.endswith("Paris.")
        assert worker_of(client).pid != worker.pid


def test_a_worker_that_dies_idle_fails_no_request(own_daemon):
    """A crash fails the requests that the worker served, and none that only found it dead."""
    with autotune.Client(own_daemon.address) as client:
        for _ in range(4):
            client.chat("Hello", temperature=0)
            worker_of(client).kill()
            assert client.chat("What is the capital of France?", temperature=0).text.endswith("Paris.")


def test_sd_notify_tells_ready_and_stopping():
    with short_home() as home, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(home / "notify"))
        listener.settimeout(PATIENCE_SECONDS)
        daemon = spawn_daemon(home, NOTIFY_SOCKET=str(home / "notify"))
        assert listener.recv(1024).startswith(b"READY=1")
        daemon.stop()
        assert listener.recv(1024).startswith(b"STOPPING=1")


def test_a_socket_path_that_is_too_long_names_the_variable():
    with short_home() as home:
        status, words = run_daemon(make_environment(home, AUTOTUNE_RUNTIME_DIR=str(home / ("x" * 120))))
    assert status == 4
    assert "AUTOTUNE_RUNTIME_DIR" in words
    assert words.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_runtime_folder_of_someone_else_is_refused():
    with short_home() as home:
        (home / "run").mkdir(mode=0o700)
        os.chown(home / "run", 12345, 12345)
        status, words = run_daemon(make_environment(home))
    assert status == 4
    assert words.count("\n") == 1


def test_a_data_folder_that_cannot_be_made_is_one_sentence():
    with short_home() as home:
        (home / "data").write_text("not a folder")
        status, words = run_daemon(make_environment(home))
    assert status == 5
    assert words.count("\n") == 1


def test_an_unknown_option_names_file_and_line():
    with short_home() as home:
        config = home / "config.toml"
        config.write_text("[queue]\nmax_waiting = 4\nmax_wating = 5\n")
        status, words = run_daemon(make_environment(home), "--config", str(config))
    assert status == 2
    assert f"{config} line 3" in words
    assert "max_waiting" in words


def test_garbage_on_the_socket_does_no_harm(daemon, client):
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 1000,
        os.urandom(4096),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
    ):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(daemon.runtime / "autotuned.sock"))
            peer.sendall(garbage)
    assert client.chat("What is the capital of France?", temperature=0).text.endswith("Paris.")


def test_a_corrupt_model_file_is_listed_with_its_problem_and_refused(own_daemon):
    models = own_daemon.home / "data" / "models"
    models.mkdir(parents=True, exist_ok=True)
    (models / "broken.gguf").write_bytes(b"GGUF" + b"\x03\x00\x00\x00" + b"\xff" * 64)
    (models / "empty.gguf").write_bytes(b"")
    with autotune.Client(own_daemon.address) as client:
        problems = {model.id: model.problem for model in client.list_models().models}
        assert problems["pocket"] == ""
        assert problems["broken"]
        assert problems["empty"]
        with pytest.raises(autotune.ModelInvalid, match='"broken" cannot be used'):
            client.chat("Hello", model="broken")
        assert client.chat("What is the capital of France?", temperature=0).text.endswith("Paris.")


def test_an_engine_that_hangs_is_ended_and_the_next_request_gets_a_fresh_one():
    with (
        running_daemon("--set", "llamacpp.silence_timeout_seconds=0.5") as daemon,
        autotune.Client(daemon.address) as client,
    ):
        client.chat("Hello", temperature=0)
        hanging = worker_of(client)
        os.kill(hanging.pid, signal.SIGSTOP)
        with pytest.raises(autotune.EngineUnreachable):
            list(client.generate(STORY))
        assert client.chat("What is the capital of France?", temperature=0).text.endswith("Paris.")
        wait_for_end([hanging])


def test_a_full_disk_costs_records_and_no_answers():
    with short_home() as home:
        (home / "data").mkdir()
        mount = f"mount -t tmpfs -o size=512k tmpfs {home / 'data'}"
        fill = f"head -c 300000 /dev/zero > {home / 'data' / 'filler'}"
        rehearsal = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount]
        if (
            shutil.which("unshare") is None
            or subprocess.run(rehearsal, check=False, capture_output=True).returncode
        ):
            pytest.skip("this system lets nobody mount a small disk")
        wrapper = [
            "unshare",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            f'{mount} && {fill} && exec "$@"',
            "sh",
        ]
        daemon = spawn_daemon(home, wrapper=wrapper)
        try:
            with autotune.Client(daemon.address) as client:
                for _ in range(150):
                    answer = client.chat("What is the capital of France?", temperature=0)
                    assert answer.text == "The capital of France is Paris."
        finally:
            assert daemon.stop() == 0
        assert "STORAGE_FULL" in daemon.words()
