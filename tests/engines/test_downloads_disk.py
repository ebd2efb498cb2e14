"""Disks that are full, fill up or refuse: told with figures, nothing wrong kept, nothing lost."""

import re
import stat
import sys

import psutil
import pytest

from autotuned.core.errors import StorageFull
from autotuned.engines.downloads.part import file_bytes
from tests.engines.downloading import blob, content, is_bare, part, pull, reference
from tests.engines.processes import descendants
from tests.fakes.scripted_registry import HANG, reply, scripted_registry

SIZE_BYTES = 300_000
CONTENT = content(SIZE_BYTES)

# Pulls into a disk of its own, twice. As soon as the first bytes are here, the rest of the disk is taken by
# somebody else; before the second pull it is free again.
FILLING = """
import asyncio, sys
from pathlib import Path

from autotuned.core.errors import StorageFull
from autotuned.core.settings import PullSettings
from autotuned.engines.downloads.downloader import WorkerDownloader
from tests.engines.downloading import pull

folder = Path(sys.argv[1])
filler = folder / "filler"

class Filling(list):
    def append(self, step):
        if step.done_bytes > 1000 and not filler.exists():
            with filler.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(1024))
                except OSError:
                    pass

downloader = WorkerDownloader(
    settings=PullSettings(registry_url=sys.argv[2], disk_margin_mib=0, silence_timeout_seconds=2.0),
    registry_store=folder / "registry", hub_cache=folder / "hub", runs_mlx=False, environment={},
)
try:
    asyncio.run(pull(downloader, "some", Filling()))
except StorageFull as error:
    print(error.message)
filler.unlink(missing_ok=True)
print(asyncio.run(pull(downloader, "some")).fetched_bytes)
"""
REFUSED = """
import asyncio, sys
from pathlib import Path

from autotuned.core.errors import StorageFull
from autotuned.core.settings import PullSettings
from autotuned.engines.downloads.downloader import WorkerDownloader
from tests.engines.downloading import pull

downloader = WorkerDownloader(
    settings=PullSettings(registry_url=sys.argv[2], disk_margin_mib=0),
    registry_store=Path(sys.argv[1], "registry"), hub_cache=Path(sys.argv[1]), runs_mlx=False, environment={},
)
try:
    asyncio.run(pull(downloader, "some"))
except StorageFull as error:
    print(error.message)
"""


@pytest.fixture
def registry():
    with scripted_registry(CONTENT) as running:
        yield running


async def test_a_download_that_does_not_fit_is_refused_before_its_first_byte(
    make_downloader, registry, paths
):
    downloader = make_downloader(registry.url, disk_margin_mib=1 << 24)
    download = await downloader.find(reference("some"))
    free_bytes, missing_bytes = download.offer.free_bytes, download.offer.missing_bytes
    with pytest.raises(StorageFull) as caught:
        await download.fetch(lambda _step: None)
    found = re.fullmatch(
        r"The download needs ([\d,.]+) MiB and 16,384\.0 GiB have to stay free, but the disk of (.+) has "
        r"([\d,.]+) GiB; free ([\d,.]+) GiB and pull again\.",
        caught.value.message,
    )
    needs, free, lacking = (float(found[n].replace(",", "")) for n in (1, 3, 4))
    assert needs == pytest.approx(missing_bytes / 2**20, abs=0.05)
    assert missing_bytes == download.offer.size_bytes
    assert free == pytest.approx(free_bytes / 2**30, rel=0.2)
    assert lacking == pytest.approx((1 << 14) - free, abs=0.2)
    assert found[2] == str(paths.registry_store)
    assert registry.asked(registry.model_digest) == []
    assert not paths.registry_store.exists()


async def test_what_is_here_already_needs_no_room(make_downloader, registry):
    await pull(make_downloader(registry.url), "some")
    downloaded = await pull(make_downloader(registry.url, disk_margin_mib=1 << 24), "some")
    assert downloaded.fetched_bytes == 0


def test_a_disk_that_fills_up_ends_a_pull_that_goes_on_once_there_is_room(run_on_disk, registry, tmp_path):
    registry.script(registry.model_digest, reply(200, CONTENT[:150_000], Content_Length=SIZE_BYTES) + HANG)
    said, fetched = run_on_disk(FILLING, tmp_path, "size=1m", registry.url).splitlines()
    found = re.fullmatch(
        r"The disk of .+/registry/blobs is full after ([\d,]+) of 300,000 bytes; what came is kept, make room "
        r"and pull again to go on\.",
        said,
    )
    kept_bytes = int(found[1].replace(",", ""))
    assert 1000 < kept_bytes < SIZE_BYTES
    assert int(fetched) == SIZE_BYTES - kept_bytes
    assert registry.requests[-1].headers["range"] == f"bytes={kept_bytes}-"


def test_a_disk_that_may_only_be_read_is_told_of(run_on_disk, registry, tmp_path):
    said = run_on_disk(REFUSED, tmp_path, "ro", registry.url)
    assert re.fullmatch(
        r".+/registry(/blobs)? cannot be written: Read-only file system; look after this folder and its disk, "
        r"then pull again: what came is kept\.\n",
        said,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
async def test_a_file_that_is_too_large_for_its_disk_is_told_of_and_kept(make_downloader, registry, paths):
    before = descendants()
    download = await make_downloader(registry.url).find(reference("some"))
    (worker,) = descendants() - before
    psutil.Process(worker).rlimit(psutil.RLIMIT_FSIZE, (200_000, 200_000))
    with pytest.raises(StorageFull, match="cannot be written: File too large"):
        await download.fetch(lambda _step: None)
    assert part(paths.registry_store, CONTENT).read_bytes() == CONTENT[:200_000]
    downloaded = await pull(make_downloader(registry.url), "some")
    assert downloaded.fetched_bytes == SIZE_BYTES - 200_000
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT


async def test_a_folder_that_is_none_is_told_of(make_downloader, registry, paths, caplog):
    paths.registry_store.write_text("a file of somebody's")
    with pytest.raises(StorageFull, match=f"{paths.registry_store}.* cannot be written: "):
        await pull(make_downloader(registry.url), "some")
    assert paths.registry_store.read_text() == "a file of somebody's"
    (record,) = [record for record in caplog.records if record.message == "what a download's worker wrote"]
    assert "Traceback" in str(record.__dict__)


async def test_a_link_in_the_place_of_a_part_is_not_followed(make_downloader, registry, paths, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("of somebody's")
    link = part(paths.registry_store, CONTENT)
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    with pytest.raises(StorageFull, match="cannot be written"):
        await pull(make_downloader(registry.url), "some")
    assert elsewhere.read_text() == "of somebody's"
    assert not list(paths.registry_store.rglob("latest"))


async def test_a_part_that_is_longer_than_the_file_is_fetched_anew(make_downloader, registry, paths):
    path = part(paths.registry_store, CONTENT)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT + b"and more")
    await pull(make_downloader(registry.url), "some")
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT


async def test_what_is_written_is_its_owners_alone(make_downloader, registry, paths):
    await pull(make_downloader(registry.url), "some")
    for path in (paths.registry_store, *paths.registry_store.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_a_newer_version_takes_the_place_of_the_old_one(make_downloader, registry, paths):
    newer = content(SIZE_BYTES, seed=2)
    await pull(make_downloader(registry.url), "some")
    with scripted_registry(newer) as other:
        await pull(make_downloader(other.url), "some")
    assert blob(paths.registry_store, newer).read_bytes() == newer
    assert not blob(paths.registry_store, CONTENT).exists()


async def test_what_another_name_needs_stays_when_one_is_replaced(make_downloader, registry, paths):
    for name in ("some", "some:other"):
        await pull(make_downloader(registry.url), name)
    with scripted_registry(content(SIZE_BYTES, seed=2)) as other:
        await pull(make_downloader(other.url), "some")
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT


async def test_a_model_whose_files_are_not_all_here_has_no_name(make_downloader, registry, paths):
    registry.script(registry.model_digest, reply(404))
    with pytest.raises(Exception, match="it has not the files that it promises"):
        await pull(make_downloader(registry.url), "some")
    assert not (paths.registry_store / "manifests").exists()
    assert not is_bare(paths.registry_store)


def test_only_a_regular_file_has_a_size(tmp_path):
    file, dangling = tmp_path / "file", tmp_path / "dangling"
    file.write_bytes(bytes(7))
    (tmp_path / "link").symlink_to(file)
    dangling.symlink_to(tmp_path / "nothing")
    sizes = [file_bytes(path) for path in (file, tmp_path / "link", dangling, tmp_path, tmp_path / "nothing")]
    assert sizes == [7, 7, -1, -1, -1]
