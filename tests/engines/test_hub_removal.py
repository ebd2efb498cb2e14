"""Deleting models from the cache of Hugging Face's libraries: what goes, what stays, what is refused."""

import asyncio
import os

import pytest
from filelock import FileLock
from huggingface_hub import scan_cache_dir

from autotuned.engines.downloads.hub_cache import HubCache
from autotuned.engines.stores.files import Notes
from autotuned.engines.stores.hub_removal import delete_hub_files
from autotuned.engines.stores.huggingface import gguf_files
from tests.engines.downloading import content as noise
from tests.engines.hub_case import EXAMPLE, MLX, Case, pocket_mlx
from tests.engines.processes import until
from tests.engines.store_files import Hub, content
from tests.fakes.cutting_proxy import cutting_proxy
from tests.fakes.hub import FakeHub

NAME = "someone/Example-GGUF"


@pytest.fixture
def hub(tmp_path):
    return Hub(tmp_path / "hub")


@pytest.fixture
def case(tmp_path):
    with FakeHub() as fake:
        yield Case(fake, tmp_path)


@pytest.fixture
def umask():
    """The one of this process as before: a download changes that of its worker."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def everything(folder):
    """All files and links but those of locks."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink()) and ".locks" not in path.parts
    }


def listed(folder):
    return [stored.path for stored in gguf_files(folder, Notes())]


def test_a_model_goes_with_its_content_and_its_repository(hub):
    hub.snapshot(NAME, "a" * 40, Example_gguf=content())
    other = hub.file("someone/Other", "b" * 40, "Other.gguf", content("b"))
    assert delete_hub_files(hub.folder, [path for path in listed(hub.folder) if NAME[8:] in path]) == len(
        content()
    )
    assert not hub.repository(NAME).exists()
    assert listed(hub.folder) == [str(other)]


def test_another_model_of_the_repository_stays(hub):
    first = hub.file(NAME, "a" * 40, "one.gguf", content("a"))
    second = hub.file(NAME, "a" * 40, "two.gguf", content("b"))
    assert delete_hub_files(hub.folder, [first]) == len(content("a"))
    assert second.read_bytes() == content("b")
    assert len(list((hub.repository(NAME) / "blobs").iterdir())) == 1


def test_a_model_goes_from_the_older_commits_too(hub):
    hub.file(NAME, "a" * 40, "one.gguf", content("old"))
    hub.file(NAME, "b" * 40, "one.gguf", content("same"))
    new = hub.file(NAME, "c" * 40, "one.gguf", content("same"))
    assert delete_hub_files(hub.folder, [new]) == len(content("old")) + len(content("same"))
    assert not hub.repository(NAME).exists()


def test_a_content_that_another_file_has_too_stays(hub):
    old = hub.file(NAME, "a" * 40, "other.gguf", content())
    new = hub.file(NAME, "b" * 40, "one.gguf", content())
    assert delete_hub_files(hub.folder, [new]) == 0
    assert old.read_bytes() == content()
    assert not new.parent.exists()
    assert delete_hub_files(hub.folder, [old]) == len(content())
    assert not hub.repository(NAME).exists()


def test_a_file_that_is_no_link_is_its_own_content(hub):
    path = hub.repository(NAME) / "snapshots" / ("a" * 40) / "sub" / "one.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(content())
    assert delete_hub_files(hub.folder, [path]) == len(content())
    assert not hub.repository(NAME).exists()


def test_what_is_gone_already_is_no_error(hub):
    path = hub.file(NAME, "a" * 40, "one.gguf", content())
    path.resolve().unlink()
    assert delete_hub_files(hub.folder, [path]) == 0
    assert delete_hub_files(hub.folder, [path]) == 0
    assert not hub.repository(NAME).exists()


def test_parts_of_a_download_that_broke_off_go_with_the_last_model(hub):
    path = hub.file(NAME, "a" * 40, "one.gguf", content())
    (hub.repository(NAME) / "blobs" / "abc.incomplete").write_bytes(bytes(1000))
    assert delete_hub_files(hub.folder, [path]) == len(content()) + 1000
    assert not hub.repository(NAME).exists()


def test_parts_of_a_download_under_way_stay(hub):
    path = hub.file(NAME, "a" * 40, "one.gguf", content())
    part = hub.repository(NAME) / "blobs" / "abc.incomplete"
    part.write_bytes(bytes(1000))
    locks = hub.folder / ".locks" / hub.repository(NAME).name
    locks.mkdir(parents=True)
    with FileLock(locks / "abc.lock"):
        assert delete_hub_files(hub.folder, [path]) == len(content())
    assert part.exists()
    assert listed(hub.folder) == []


@pytest.mark.usefixtures("umask")
def test_between_two_files_of_a_download_its_first_one_stays(hub):
    path = hub.file(NAME, "a" * 40, "one.gguf", content())
    first = hub.repository(NAME) / "blobs" / "abc"
    first.write_bytes(bytes(1000))
    with HubCache(hub.folder, NAME, "b" * 40).in_use():
        assert delete_hub_files(hub.folder, [path]) == len(content())
        assert first.exists()
    assert delete_hub_files(hub.folder, [path]) == 1000
    assert not hub.repository(NAME).exists()


@pytest.mark.parametrize(
    "parts", [("..", "out"), ("x",), ("models--a", "blobs", "b"), ("models--a", "snapshots", "c")]
)
def test_paths_of_something_else_are_refused(hub, parts):
    inside = hub.file(NAME, "a" * 40, "one.gguf", content())
    path = hub.folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"precious")
    with pytest.raises(ValueError, match="is no file of a model in the cache"):
        delete_hub_files(hub.folder, [inside, path])
    assert path.read_bytes() == b"precious"
    assert inside.exists()


def test_a_folder_that_leads_out_of_the_cache_is_refused(hub, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "one.gguf").write_bytes(b"precious")
    snapshot = hub.repository(NAME) / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(outside)
    with pytest.raises(ValueError, match="is no file of a model"):
        delete_hub_files(hub.folder, [snapshot / "one.gguf"])
    assert (outside / "one.gguf").exists()


def test_a_link_that_leads_out_of_the_cache_goes_without_what_it_names(hub, tmp_path):
    outside = tmp_path / "mine.gguf"
    outside.write_bytes(content())
    link = hub.repository(NAME) / "snapshots" / ("a" * 40) / "one.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    assert delete_hub_files(hub.folder, [link]) == 0
    assert outside.read_bytes() == content()
    assert not hub.repository(NAME).exists()


async def test_what_was_pulled_leaves_nothing_and_what_the_libraries_fetched_stays(case):
    case.hub.add(MLX, pocket_mlx())
    case.hub.add(EXAMPLE, {"README.md": b"Hello!", "Example-Q4_K_M.gguf": content()})
    case.fetch_by_library(EXAMPLE, "README.md")
    before = everything(case.cache)
    done = [await case.pull(EXAMPLE), await case.pull(MLX)]
    paths = [path for path in case.cache.glob("models--*/snapshots/*/*") if path.name != "README.md"]
    assert delete_hub_files(case.cache, paths) == sum(each.size_bytes for each in done)
    assert everything(case.cache) == before
    assert not scan_cache_dir(case.cache).warnings


async def test_a_model_that_is_deleted_does_not_disturb_a_pull_of_its_repository(case):
    large = noise(10_000_000)
    case.hub.add(EXAMPLE, {"Example-Q4_K_M.gguf": content(), "Example-Q8_0.gguf": large})
    await case.pull(EXAMPLE)
    with cutting_proxy(case.hub.cdn_port, bytes_per_second=10e6) as proxy:
        case.hub.cdn_url = proxy.url
        pulling = asyncio.create_task(case.pull(f"{EXAMPLE}:Q8_0"))
        await until(lambda: any(0 < step.done_bytes < len(large) for step in case.steps), "bytes come")
        assert delete_hub_files(case.cache, listed(case.cache)) == len(content())
        assert (await pulling).fetched_bytes == len(large)
    assert list(case.blobs().values()) == [large]
    assert [path.rpartition("/")[2] for path in listed(case.cache)] == ["Example-Q8_0.gguf"]


async def test_a_repository_that_is_deleted_by_hand_while_its_files_come_is_fetched_again(case):
    parts = {f"m-0000{number}-of-00002.gguf": noise(6_000_000, number) for number in (1, 2)}
    case.hub.add(EXAMPLE, parts)
    with cutting_proxy(case.hub.cdn_port, bytes_per_second=10e6) as proxy:
        case.hub.cdn_url = proxy.url
        pulling = asyncio.create_task(case.pull(EXAMPLE))
        await until(lambda: any(step.done_bytes > 7_000_000 for step in case.steps), "the second file comes")
        (first,) = (path for path in case.cache.glob("models--*/blobs/*") if path.stat().st_size == 6_000_000)
        first.unlink()
        assert (await pulling).fetched_bytes == 18_000_000
    assert sorted(case.blobs().values()) == sorted(parts.values())
