"""A pull of 300 MB from a real registry: what cuts cost, and how fast it is beside plain clients.

The registry is Debian's docker-registry; where it is not installed nothing is measured. Every byte that a
proxy hands on is counted, heads of answers included.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from autotuned.core.settings import PullSettings
from autotuned.engines.downloads.downloader import WorkerDownloader
from tests.bench import processes
from tests.bench.report import Row, median
from tests.engines.downloading import pull
from tests.fakes import docker_registry as registries
from tests.fakes.cutting_proxy import cutting_proxy, random_cuts

SIZE_BYTES = 300_000_000
CUTS_COUNT = 20
SEEDS = (1, 2, 3)
ROUNDS = 5
NAME = "big:300m"
MEGABYTE = 1e6

# The least that a program with httpx does: bytes to a file, nothing verified.
PLAIN = """
import sys, httpx
with open(sys.argv[2], "wb") as file, httpx.stream("GET", sys.argv[1], trust_env=False) as response:
    for data in response.iter_raw():
        file.write(data)
"""


def measure() -> list[Row]:
    if registries.PROGRAM is None:
        print(f"left out: {registries.MISSING}")
        return []
    with processes.home() as folder:
        gguf = folder / "big.gguf"
        digest = _write(gguf)
        with registries.docker_registry(folder) as registry:
            registry.push_file(gguf, NAME)
            return [
                *_cut(folder, registry.port, digest),
                *_rates(folder, registry.url, f"{registry.url}/v2/library/big/blobs/sha256:{digest}"),
            ]


def _write(path: Path) -> str:
    """A file that nothing can compress; returns its hash."""
    chance, hashed = random.Random(1), hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(SIZE_BYTES // 1_000_000):
            data = chance.randbytes(1_000_000)
            hashed.update(data)
            file.write(data)
    return hashed.hexdigest()


def _cut(folder: Path, port: int, digest: str) -> list[Row]:
    right, beyond, seconds = 0, [], []
    for seed in SEEDS:
        store = folder / f"cut-{seed}"
        with cutting_proxy(port, cuts=random_cuts(CUTS_COUNT, SIZE_BYTES, seed)) as proxy:
            started = time.perf_counter()
            _pull(proxy.url, store)
            seconds.append(time.perf_counter() - started)
            if proxy.cuts_count != CUTS_COUNT:
                raise AssertionError(f"{proxy.cuts_count} connections were cut")
            beyond.append(100 * (proxy.sent_bytes / SIZE_BYTES - 1))
        with (store / "blobs" / f"sha256-{digest}").open("rb") as file:
            right += hashlib.file_digest(file, "sha256").hexdigest() == digest
        shutil.rmtree(store)
    what = f"300 MB through {CUTS_COUNT} random cuts"
    return [
        Row(f"{what}: right digests of {len(SEEDS)}", right, "", len(SEEDS), at_least=True),
        Row(f"{what}: bytes fetched beyond its size, most of {len(SEEDS)}", max(beyond), "%", 10),
        Row(f"{what}: time", median(seconds), "s"),
    ]


def _rates(folder: Path, url: str, blob_url: str) -> list[Row]:
    """In turn, so that what else the machine does falls on all of them."""
    target, store = folder / "plain", folder / "store"
    clients: dict[str, Callable[[], object]] = {
        "pull: verified, on the disk": lambda: _pull(url, store),
        "httpx: neither": lambda: _run(sys.executable, "-I", "-c", PLAIN, blob_url, target),
    }
    if curl := shutil.which("curl"):
        clients["curl: neither"] = lambda: _run(curl, "--silent", "--noproxy", "*", "-o", target, blob_url)
    seconds: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(ROUNDS):
        for name, fetch in clients.items():
            shutil.rmtree(store, ignore_errors=True)
            target.unlink(missing_ok=True)
            started = time.perf_counter()
            fetch()
            seconds[name].append(time.perf_counter() - started)
    return [
        Row(f"300 MB from this machine, {name}", SIZE_BYTES / MEGABYTE / median(taken), "MB/s")
        for name, taken in seconds.items()
    ]


def _run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True)


def _pull(url: str, store: Path) -> None:
    downloader = WorkerDownloader(
        settings=PullSettings(registry_url=url, disk_margin_mib=0),
        registry_store=store,
        hub_cache=store,
        runs_mlx=False,
        environment={},
    )
    asyncio.run(pull(downloader, NAME))
