"""Pulls from a real registry over lines that break, fall silent or are slow, and workers that are killed."""

import asyncio
import os
import signal
import sys

import psutil
import pytest

from autotuned.core.download import DownloadPhase
from autotuned.core.errors import SourceUnreachable
from tests.engines.downloading import blob, content, details, part, pull, reference
from tests.engines.processes import descendants, is_alive, until
from tests.fakes import docker_registry as registries
from tests.fakes.cutting_proxy import cutting_proxy, random_cuts
from tests.fakes.ollama.model_store import add_model

SIZE_BYTES = 30_000_000
CONTENT = content(SIZE_BYTES)
SEEDS = (1, 2, 3)

# A daemon in small: it fetches, tells how far it came, and waits to be killed.
DAEMON = """
import asyncio, sys
from pathlib import Path

from autotuned.core.settings import PullSettings
from autotuned.engines.downloads.downloader import WorkerDownloader
from tests.engines.downloading import pull

class Told(list):
    def append(self, step):
        print(step.done_bytes, flush=True)

downloader = WorkerDownloader(
    settings=PullSettings(registry_url=sys.argv[2], disk_margin_mib=0), registry_store=Path(sys.argv[1]),
    hub_cache=Path(sys.argv[1]), runs_mlx=False, environment={},
)
asyncio.run(pull(downloader, "big:30m", Told()))
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    registries.require_docker_registry()
    origin = tmp_path_factory.mktemp("origin")
    gguf = origin / "big.gguf"
    # A file that is large enough to be cut; nothing here runs it.
    gguf.write_bytes(CONTENT)
    with registries.docker_registry(tmp_path_factory.mktemp("registry")) as running:
        add_model(origin, "small:1m")
        running.push(origin, "small:1m")
        running.push_file(gguf, "big:30m")
        yield running


@pytest.mark.parametrize("seed", SEEDS)
async def test_twenty_cuts_at_random_bytes_cost_less_than_a_tenth(make_downloader, registry, paths, seed):
    with cutting_proxy(registry.port, cuts=random_cuts(20, SIZE_BYTES, seed)) as proxy:
        steps = []
        downloaded = await pull(make_downloader(proxy.url), "big:30m", steps)
        assert proxy.cuts_count == 20
        assert proxy.sent_bytes <= 1.1 * SIZE_BYTES
    assert downloaded.fetched_bytes <= proxy.sent_bytes
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT
    assert details(steps)
    done = [step.done_bytes for step in steps if step.phase is DownloadPhase.DOWNLOADING]
    assert done == sorted(done)


async def test_cuts_before_anything_is_known_are_tried_again(make_downloader, registry, paths):
    with cutting_proxy(registry.port, cuts=(1, 40, 400)) as proxy:
        downloaded = await pull(make_downloader(proxy.url), "small:1m")
        assert proxy.cuts_count == 3
    assert downloaded.fetched_bytes == downloaded.size_bytes


async def test_a_line_that_falls_silent_is_given_up_for_another_one(make_downloader, registry, paths):
    with cutting_proxy(registry.port) as proxy:
        proxy.hold_at = SIZE_BYTES // 2
        steps = []
        pulling = asyncio.create_task(
            pull(make_downloader(proxy.url, silence_timeout_seconds=0.5), "big:30m", steps)
        )
        await until(lambda: details(steps), "it waits")
        proxy.hold_at = None
        await pulling
        assert proxy.sent_bytes <= 1.1 * SIZE_BYTES
    assert f"127.0.0.1:{proxy.port} is silent" in details(steps)
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT


async def test_a_line_that_stays_silent_ends_with_words_and_keeps_what_came(make_downloader, registry, paths):
    with cutting_proxy(registry.port) as proxy:
        proxy.hold_at = SIZE_BYTES // 3
        hasty = make_downloader(proxy.url, silence_timeout_seconds=0.3, patience_seconds=1.0)
        with pytest.raises(SourceUnreachable, match=r"is silent; what came is kept, pull again to go on\.$"):
            await pull(hasty, "big:30m")
    kept_bytes = part(paths.registry_store, CONTENT).stat().st_size
    assert SIZE_BYTES // 4 < kept_bytes < SIZE_BYTES // 3
    downloaded = await pull(make_downloader(registry.url), "big:30m")
    assert downloaded.fetched_bytes == downloaded.size_bytes - kept_bytes


async def test_a_server_that_is_gone_is_told_with_its_name(make_downloader):
    with cutting_proxy(1) as proxy:
        url = proxy.url
    with pytest.raises(SourceUnreachable, match=r"^127\.0\.0\.1:\d+ cannot be asked:"):
        await make_downloader(url, patience_seconds=1.0).find(reference("big:30m"))


async def test_a_cancelled_pull_stops_at_once_and_keeps_what_came(make_downloader, registry, paths):
    with cutting_proxy(registry.port, bytes_per_second=5e6) as proxy:
        steps = []
        pulling = asyncio.create_task(pull(make_downloader(proxy.url), "big:30m", steps))
        await until(lambda: any(step.done_bytes > 1_000_000 for step in steps), "a megabyte is here")
        pulling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pulling
        assert proxy.sent_bytes < SIZE_BYTES
    kept_bytes = part(paths.registry_store, CONTENT).stat().st_size
    assert kept_bytes >= 1_000_000
    downloaded = await pull(make_downloader(registry.url), "big:30m")
    assert downloaded.fetched_bytes == downloaded.size_bytes - kept_bytes
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT


async def test_a_search_that_is_cancelled_leaves_no_worker(make_downloader, registry):
    before = descendants()
    with cutting_proxy(registry.port) as proxy:
        proxy.hold_at = 0
        finding = asyncio.create_task(make_downloader(proxy.url).find(reference("big:30m")))
        await until(lambda: proxy.connections_count, "the registry is asked")
        assert descendants() > before
        finding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await finding
    assert descendants() == before


async def test_a_worker_that_is_killed_is_told_of_and_the_next_one_goes_on(
    make_downloader, registry, paths, caplog
):
    before = descendants()
    with cutting_proxy(registry.port, bytes_per_second=5e6) as proxy:
        steps = []
        pulling = asyncio.create_task(pull(make_downloader(proxy.url), "big:30m", steps))
        await until(lambda: any(step.done_bytes > 1_000_000 for step in steps), "a megabyte is here")
        (worker,) = descendants() - before
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(SourceUnreachable, match="was killed by signal 9; pull again: what came is kept"):
            await pulling
    assert "a download's worker ended without a result" in caplog.text
    kept_bytes = part(paths.registry_store, CONTENT).stat().st_size
    downloaded = await pull(make_downloader(registry.url), "big:30m")
    assert downloaded.fetched_bytes == downloaded.size_bytes - kept_bytes
    assert kept_bytes >= 1_000_000


async def test_a_daemon_that_is_killed_leaves_no_worker_and_what_came(make_downloader, registry, paths):
    with cutting_proxy(registry.port, bytes_per_second=5e6) as proxy:
        daemon = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", DAEMON, paths.registry_store, proxy.url), stdout=asyncio.subprocess.PIPE
        )
        while int(await daemon.stdout.readline()) < 1_000_000:
            pass
        (worker,) = psutil.Process(daemon.pid).children()
        daemon.kill()
        await daemon.wait()
        await until(lambda: not is_alive(worker.pid), "the worker is gone")
        await daemon.stdout.read()
    kept_bytes = part(paths.registry_store, CONTENT).stat().st_size
    downloaded = await pull(make_downloader(registry.url), "big:30m")
    assert downloaded.fetched_bytes == downloaded.size_bytes - kept_bytes


async def test_two_pulls_of_one_file_at_once_fetch_it_once(make_downloader, registry, paths):
    with cutting_proxy(registry.port, bytes_per_second=20e6) as proxy:
        steps = [], []
        both = await asyncio.gather(*(pull(make_downloader(proxy.url), "big:30m", each) for each in steps))
        assert proxy.sent_bytes <= 1.1 * SIZE_BYTES
    size_bytes = both[0].size_bytes
    assert sum(downloaded.fetched_bytes for downloaded in both) == size_bytes
    assert "another download of the same file is under way" in details(steps[0]) + details(steps[1])
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT


async def test_who_waits_for_another_pull_takes_over_when_that_one_is_killed(
    make_downloader, registry, paths
):
    before = descendants()
    with cutting_proxy(registry.port, bytes_per_second=5e6) as proxy:
        first_steps, steps = [], []
        first = asyncio.create_task(pull(make_downloader(proxy.url), "big:30m", first_steps))
        await until(lambda: any(step.done_bytes > 1_000_000 for step in first_steps), "a megabyte is here")
        (worker,) = descendants() - before
        second = asyncio.create_task(pull(make_downloader(registry.url), "big:30m", steps))
        await until(lambda: details(steps), "the second one waits")
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(SourceUnreachable):
            await first
        downloaded = await second
    assert 0 < downloaded.fetched_bytes < downloaded.size_bytes - 1_000_000
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT
