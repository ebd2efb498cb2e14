"""Pulls from a hub over lines that break, fall silent or are slow, and workers that are killed."""

import asyncio
import hashlib
import os
import signal

import pytest
from filelock import FileLock
from huggingface_hub import constants

from autotuned.core.download import DownloadPhase
from autotuned.core.errors import SourceUnreachable
from autotuned.engines.downloads import hub_access
from autotuned.engines.downloads.files import fetch_file
from autotuned.engines.downloads.hub_cache import HubCache
from autotuned.engines.downloads.hub_choice import HubFile
from autotuned.engines.downloads.patience import Patience
from tests.engines.downloading import content, details
from tests.engines.hub_case import EXAMPLE, Case
from tests.engines.processes import descendants, until
from tests.fakes.cutting_proxy import cutting_proxy, random_cuts
from tests.fakes.hub import FakeHub

SIZE_BYTES = 30_000_000
CONTENT = content(SIZE_BYTES)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SMALL = content(200_000, seed=2)
PART = f"{DIGEST}.incomplete"


@pytest.fixture
def case(tmp_path):
    with FakeHub() as hub:
        hub.add(EXAMPLE, {"Example-Q4_K_M.gguf": CONTENT, "Example-Q8_0.gguf": SMALL})
        yield Case(hub, tmp_path)


@pytest.fixture
def line(case):
    """``line(cuts, ...)`` is a proxy in front of the CDN."""

    def through(**how):
        return cutting_proxy(case.hub.cdn_port, **how)

    return through


def begin(case, proxy, text=EXAMPLE):
    """A pull under way over this line."""
    case.hub.cdn_url = proxy.url
    return asyncio.create_task(case.pull(text))


async def until_a_megabyte_is_here(case):
    await until(lambda: any(step.done_bytes > 1_000_000 for step in case.steps), "a megabyte is here")


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_twenty_cuts_at_random_bytes_cost_less_than_a_tenth(case, line, seed):
    with line(cuts=random_cuts(20, SIZE_BYTES, seed)) as proxy:
        done = await begin(case, proxy)
        assert proxy.cuts_count == 20
        assert proxy.sent_bytes <= 1.1 * SIZE_BYTES
    assert done.fetched_bytes <= proxy.sent_bytes
    assert case.blobs() == {DIGEST: CONTENT}
    downloading = [step.done_bytes for step in case.steps if step.phase is DownloadPhase.DOWNLOADING]
    assert downloading == sorted(downloading)
    assert details(case.steps)


async def test_cuts_before_anything_is_known_are_tried_again(case):
    with cutting_proxy(int(case.hub.url.rpartition(":")[2]), cuts=(1, 40, 400)) as proxy:
        case.settings["huggingface_url"] = proxy.url
        done = await case.pull(f"{EXAMPLE}:Q8_0")
        assert proxy.cuts_count == 3
    assert done.fetched_bytes == len(SMALL)


async def test_a_cdn_that_sends_whole_files_only_is_read_from_the_start(case, line):
    case.hub.ignores_ranges = True
    with line(cuts=(100_000,)) as proxy:
        await begin(case, proxy, f"{EXAMPLE}:Q8_0")
    assert list(case.blobs().values()) == [SMALL]


async def test_a_line_that_stays_silent_ends_with_words_and_the_next_pull_goes_on(case, line):
    with line() as proxy:
        proxy.hold_at = SIZE_BYTES // 3
        case.settings |= {"silence_timeout_seconds": 0.3, "patience_seconds": 1.0}
        with pytest.raises(SourceUnreachable, match=r"is silent; what came is kept, pull again to go on\.$"):
            await begin(case, proxy)
    kept_bytes = len(case.blobs()[PART])
    assert SIZE_BYTES // 4 < kept_bytes < SIZE_BYTES // 3
    case.settings.clear()
    with line() as proxy:
        case.hub.cdn_url = proxy.url
        download = await case.find(EXAMPLE)
        assert download.offer.missing_bytes == SIZE_BYTES - kept_bytes
        assert (await download.fetch(case.steps.append)).fetched_bytes == SIZE_BYTES - kept_bytes
    assert case.blobs() == {DIGEST: CONTENT}


async def test_a_hub_that_is_gone_is_told_with_its_name(case):
    with cutting_proxy(1) as proxy:
        case.settings |= {"huggingface_url": proxy.url, "patience_seconds": 1.0}
    gone = r"^127\.0\.0\.1:\d+ cannot be asked: there is no connection to it "
    with pytest.raises(SourceUnreachable, match=gone):
        await case.find(EXAMPLE)


async def test_a_cancelled_pull_stops_at_once_and_keeps_what_came(case, line):
    before = descendants()
    with line(bytes_per_second=5e6) as proxy:
        pulling = begin(case, proxy)
        await until_a_megabyte_is_here(case)
        pulling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pulling
        assert descendants() == before
        assert proxy.sent_bytes < SIZE_BYTES
    kept_bytes = len(case.blobs()[PART])
    assert kept_bytes >= 1_000_000
    assert case.listed() == []
    with line() as proxy:
        assert (await begin(case, proxy)).fetched_bytes == SIZE_BYTES - kept_bytes
    assert case.blobs() == {DIGEST: CONTENT}


async def test_a_worker_that_is_killed_is_told_of_and_the_next_one_goes_on(case, line):
    before = descendants()
    with line(bytes_per_second=5e6) as proxy:
        pulling = begin(case, proxy)
        await until_a_megabyte_is_here(case)
        (worker,) = descendants() - before
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(SourceUnreachable, match="was killed by signal 9; pull again: what came is kept"):
            await pulling
    kept_bytes = len(case.blobs()[PART])
    assert kept_bytes >= 1_000_000
    with line() as proxy:
        assert (await begin(case, proxy)).fetched_bytes == SIZE_BYTES - kept_bytes
    assert case.blobs() == {DIGEST: CONTENT}


async def test_two_pulls_of_one_file_at_once_fetch_it_once(case, line):
    with line(bytes_per_second=20e6) as proxy:
        both = await asyncio.gather(begin(case, proxy), begin(case, proxy))
        assert proxy.sent_bytes <= 1.1 * SIZE_BYTES
    assert sum(done.fetched_bytes for done in both) == SIZE_BYTES
    assert "another program downloads the same file" in details(case.steps)
    assert case.blobs() == {DIGEST: CONTENT}


async def test_it_waits_for_the_libraries_own_download_of_the_same_file(case, line):
    locks = case.cache / ".locks" / f"models--{EXAMPLE.replace('/', '--')}"
    locks.mkdir(parents=True)
    with line() as proxy:
        with FileLock(locks / f"{DIGEST}.lock"):
            pulling = begin(case, proxy)
            await until(lambda: details(case.steps), "it waits")
            assert proxy.sent_bytes == 0
        assert (await pulling).fetched_bytes == SIZE_BYTES


async def test_a_part_that_is_not_the_file_is_found_out_and_fetched_anew(case, line):
    blobs = case.cache / f"models--{EXAMPLE.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / PART).write_bytes(bytes(1_000_000))
    with line() as proxy:
        done = await begin(case, proxy)
    assert done.fetched_bytes == 2 * SIZE_BYTES - 1_000_000
    assert case.blobs() == {DIGEST: CONTENT}


async def test_a_file_that_is_too_large_for_one_answer_comes_in_pieces(case, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_access, "MOST_AT_ONCE_BYTES", 90_000)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    repository = case.hub.repositories[EXAMPLE]
    digest = repository.digests["Example-Q8_0.gguf"]
    file = HubFile(path="Example-Q8_0.gguf", size_bytes=len(SMALL), blob_name=digest)
    hub = hub_access.Hub(case.hub.url, EXAMPLE, repository.commit, timeout_seconds=10)
    wanted = HubCache(tmp_path, EXAMPLE, repository.commit).wanted(file, hub.host)
    patience = Patience(10, hub.host)
    fetched = await asyncio.to_thread(
        fetch_file, wanted, lambda offset: hub.open(file, offset), patience, lambda *_: None
    )
    assert fetched == len(SMALL)
    assert wanted.target.read_bytes() == SMALL
    assert [request.headers["range"] for request in case.hub.asked("cdn")] == [
        "bytes=0-89999",
        "bytes=90000-179999",
        "bytes=180000-199999",
    ]
