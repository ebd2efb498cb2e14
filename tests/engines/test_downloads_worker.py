"""The daemon's side against workers that do not behave: what is told, what is logged, and that they are gone."""

import asyncio
import json
import sys

import pytest

from autotuned.core.errors import ModelNotFound, SourceUnreachable
from autotuned.engines.downloads import worker_process as module
from tests.engines.downloading import reference
from tests.engines.processes import descendants, descriptors, until

RESOLVED = json.dumps(
    {
        "type": "resolved",
        "model_id": "some:latest",
        "engine": "llamacpp",
        "quantization": "",
        "size_bytes": 10,
        "weights_bytes": 10,
        "missing_bytes": 10,
        "files_count": 1,
        "folder": "/somewhere",
        "free_bytes": 100,
    }
)
SAY = f"print({RESOLVED!r}, flush=True); input()"
STEP = '{"type":"step","phase":"downloading","done_bytes":3,"total_bytes":10,"detail":""}'


@pytest.fixture
def downloader(make_downloader, tmp_path, monkeypatch):
    """``downloader(program)``: one whose worker is this program."""

    def make(program):
        path = tmp_path / "worker.py"
        path.write_text(program)
        monkeypatch.setattr(module, "WORKER", path)
        return make_downloader("https://nowhere.invalid")

    return make


async def fetch(downloader, steps=None):
    download = await downloader.find(reference("some"))
    return await download.fetch((steps if steps is not None else []).append)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("print('hello')", "writes nonsense"),
        ('print(\'{"type": "done", "fetched_bytes": 1}\')', "writes nonsense"),
        ("print('x' * 1_000_000)", "writes nonsense"),
        ('print(\'{"type": "resolved"}\')', "writes nonsense"),
        ("print('{', end='')", "exited with status 0"),
        ("raise SystemExit(3)", "exited with status 3"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by signal 9"),
        (f"{SAY}; print({RESOLVED!r})", "writes nonsense"),
        (f"{SAY}; raise SystemExit(4)", "exited with status 4"),
    ],
)
async def test_a_worker_that_does_not_answer_sensibly_is_told_of(downloader, program, why):
    with pytest.raises(SourceUnreachable, match=f"^The process that downloads some {why}; pull again"):
        await fetch(downloader(program))


async def test_what_a_worker_says_before_it_dies_is_in_the_log(downloader, caplog):
    with pytest.raises(SourceUnreachable, match="the log has more"):
        await fetch(downloader("raise ValueError('the reason')"))
    (record,) = [each for each in caplog.records if each.message == "what a download's worker wrote"]
    assert "ValueError: the reason" in str(record.__dict__)


async def test_a_failure_that_nobody_knows_is_an_unreachable_source(downloader):
    line = json.dumps({"type": "failed", "reason": "NEW", "message": "Something new."})
    with pytest.raises(SourceUnreachable, match=r"^Something new\.$"):
        await fetch(downloader(f"print({line!r})"))


async def test_a_failure_keeps_its_words(downloader):
    line = json.dumps({"type": "failed", "reason": "MODEL_NOT_FOUND", "message": "There is none there."})
    with pytest.raises(ModelNotFound) as caught:
        await fetch(downloader(f"print({line!r})"))
    assert caught.value.message == str(caught.value) == "There is none there."
    assert caught.value.metadata["model"] == "some"


async def test_what_it_tells_arrives_in_order(downloader):
    done = json.dumps({"type": "done", "fetched_bytes": 7})
    steps = []
    downloaded = await fetch(
        downloader(f"{SAY}\nfor line in [{STEP!r}] * 3 + [{done!r}]: print(line)"), steps
    )
    assert [(step.done_bytes, step.total_bytes) for step in steps] == [(3, 10)] * 3
    assert (downloaded.model_id, downloaded.fetched_bytes) == ("some:latest", 7)


async def test_a_program_that_cannot_be_started_is_told_of(downloader, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(SourceUnreachable, match="cannot be started: No such file or directory; try again"):
        await fetch(downloader(""))


async def test_a_worker_that_does_not_want_to_end_is_killed_with_all_that_it_started(downloader):
    before = descendants()
    program = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        f"print({RESOLVED!r}, flush=True)\n"
        "signal.pause()"
    )
    download = await downloader(program).find(reference("some"))
    await until(lambda: len(descendants() - before) == 2, "it and its child run")
    await download.close()
    await download.close()
    await until(lambda: descendants() == before, "both are gone")


async def test_a_download_that_is_closed_while_it_fetches_ends_with_words(downloader):
    download = await downloader(f"{SAY}\nimport signal; signal.pause()").find(reference("some"))
    fetching = asyncio.create_task(download.fetch(lambda _step: None))
    await asyncio.sleep(0.05)
    await download.close()
    with pytest.raises(SourceUnreachable, match=r"^The download of some was broken off; pull again"):
        await fetching


async def test_nothing_of_a_download_stays_open(downloader):
    some = downloader(SAY)
    for _ in range(2):
        before = descriptors()
        download = await some.find(reference("some"))
        await download.close()
    assert descriptors() == before


async def test_a_worker_gets_the_environment_of_the_downloader_and_no_other(downloader, monkeypatch):
    monkeypatch.setenv("ONLY_THE_DAEMON", "1")
    program = "import os, sys; sys.exit(7 if 'ONLY_THE_DAEMON' in os.environ else 8)"
    with pytest.raises(SourceUnreachable, match="exited with status 8"):
        await fetch(downloader(program))
