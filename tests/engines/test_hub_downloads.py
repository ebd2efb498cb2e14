"""Downloads from a hub: what comes, what it is called, and who finds it afterwards."""

import pytest
from huggingface_hub import scan_cache_dir, try_to_load_from_cache

from autotuned.core.download import DownloadPhase, Offer
from autotuned.core.errors import Unsupported
from autotuned.core.settings import MlxSettings
from autotuned.engines.mlx.engine import MlxEngine
from autotuned.engines.stores.folders import StoreFolders
from tests.engines.conftest import SystemClock
from tests.engines.gguf_split import split
from tests.engines.hub_case import EXAMPLE, MLX, POCKET, Case, pocket_mlx
from tests.engines.shapes import SHAPE
from tests.engines.store_files import content
from tests.fakes.hub import FakeHub
from tests.suites.engine_case import answer, ask, text_of

README = b"---\nlicense: mit\n---\n" * 20


@pytest.fixture
def case(tmp_path):
    with FakeHub() as hub:
        yield Case(hub, tmp_path)


async def test_a_model_is_listed_under_the_name_that_was_offered(case):
    case.hub.add(
        EXAMPLE, {"README.md": README, "Example-Q4_K_M.gguf": content(), "Example-Q8_0.gguf": content("b")}
    )
    download = await case.find(EXAMPLE)
    size = len(content())
    free_bytes = download.offer.free_bytes
    assert free_bytes > 0
    assert download.offer == Offer(
        model_id="Example-Q4_K_M",
        engine="llamacpp",
        quantization="Q4_K_M",
        size_bytes=size,
        weights_bytes=size,
        missing_bytes=size,
        files_count=1,
        folder=str(case.cache),
        free_bytes=free_bytes,
    )
    assert not case.cache.exists()
    done = await download.fetch(case.steps.append)
    assert (done.model_id, done.engine, done.size_bytes, done.fetched_bytes) == (
        "Example-Q4_K_M",
        "llamacpp",
        size,
        size,
    )
    assert [(entry.id, entry.size_bytes, entry.problem) for entry in case.listed()] == [
        ("Example-Q4_K_M", size, "")
    ]
    assert case.steps[-1].phase is DownloadPhase.FINISHING
    assert (case.steps[-1].done_bytes, case.steps[-1].total_bytes) == (size, size)


async def test_what_is_here_is_not_fetched_again(case):
    case.hub.add(EXAMPLE, {"Example-Q4_K_M.gguf": content()})
    await case.pull(EXAMPLE)
    sent_bytes = case.hub.sent_bytes
    again = await case.find(EXAMPLE)
    assert (again.offer.missing_bytes, again.offer.size_bytes) == (0, len(content()))
    assert (await again.fetch(case.steps.append)).fetched_bytes == 0
    assert case.hub.sent_bytes == sent_bytes


async def test_the_libraries_find_it_in_the_cache_and_it_finds_theirs(case):
    repository = case.hub.add(EXAMPLE, {"README.md": README, "Example-Q4_K_M.gguf": content()})
    await case.pull(EXAMPLE)
    (link,) = case.cache.glob("models--*/snapshots/*/*.gguf")
    assert try_to_load_from_cache(EXAMPLE, "Example-Q4_K_M.gguf", cache_dir=case.cache) == str(link)
    assert list(case.blobs().values()) == [content()]
    scanned = scan_cache_dir(case.cache)
    assert not scanned.warnings
    assert {(repo.repo_id, repo.size_on_disk) for repo in scanned.repos} == {(EXAMPLE, len(content()))}
    assert {revision.commit_hash for repo in scanned.repos for revision in repo.revisions} == {
        repository.commit
    }
    case.fetch_by_library(EXAMPLE, "README.md")
    assert (await case.find(EXAMPLE)).offer.missing_bytes == 0


async def test_a_file_that_the_libraries_fetched_is_not_fetched_again(case):
    case.hub.add(EXAMPLE, {"Example-Q4_K_M.gguf": content(), "Example-Q8_0.gguf": content("b")})
    case.fetch_by_library(EXAMPLE, "Example-Q8_0.gguf")
    assert (await case.pull(f"{EXAMPLE}:q8_0")).fetched_bytes == 0
    assert (await case.pull(EXAMPLE)).fetched_bytes == len(content())
    assert {entry.id for entry in case.listed()} == {"Example-Q4_K_M", "Example-Q8_0"}


async def test_all_parts_of_a_split_model_come_and_it_chats_at_once(case, make_engine):
    engine = make_engine(stores=StoreFolders(huggingface=case.cache))
    assert [entry.id for entry in await engine.models()] == ["pocket"]
    parts = split(POCKET.read_bytes(), 3)
    files = {f"Q8_0/Pocket-Q8_0-{number:05d}-of-00003.gguf": part for number, part in enumerate(parts, 1)}
    case.hub.add(EXAMPLE, files | {"mmproj-F16.gguf": content("p")})
    done = await case.pull(f"{EXAMPLE}:Q8_0")
    assert (done.model_id, done.size_bytes) == ("Pocket-Q8_0", sum(map(len, parts)))
    entries = {entry.id: entry for entry in await engine.models()}
    assert entries.keys() == {"pocket", done.model_id}
    model = await engine.load(entries[done.model_id], SHAPE, lambda _: None)
    whole = await engine.load(entries["pocket"], SHAPE, lambda _: None)
    request = ask("Hello!", max_reply_tokens=8)
    assert text_of(await answer(model, request)) == text_of(await answer(whole, request)) != ""


async def test_the_files_that_mlx_needs_come_and_it_is_listed_at_once(case, paths):
    engine = MlxEngine(
        paths=paths,
        settings=MlxSettings(),
        clock=SystemClock(),
        stores=StoreFolders(huggingface=case.cache),
    )
    assert await engine.models() == ()
    files = pocket_mlx()
    case.hub.add(MLX, files | {"README.md": README, "model.py": b"import os", "onnx/model.onnx": b"x"})
    done = await case.pull(MLX)
    assert (done.model_id, done.engine) == (MLX, "mlx")
    assert done.fetched_bytes == done.size_bytes == sum(map(len, files.values()))
    assert sorted(path.name for path in case.cache.glob("models--*/snapshots/*/*")) == sorted(files)
    assert [(entry.id, entry.problem) for entry in await engine.models()] == [(MLX, "")]
    await engine.close()


async def test_an_mlx_model_is_refused_where_none_can_run(case):
    case.runs_mlx = False
    case.hub.add(MLX, pocket_mlx())
    with pytest.raises(Unsupported, match="MLX, which does not run here"):
        await case.find(MLX)


async def test_the_name_of_a_repository_that_moved_is_the_new_one(case):
    case.hub.add(MLX, pocket_mlx())
    case.hub.moved["MLX-Community/pocket-BF16"] = MLX
    assert (await case.pull("MLX-Community/pocket-BF16")).model_id == MLX


async def test_a_second_model_of_one_name_has_its_repository_before_it(case):
    case.hub.add(EXAMPLE, {"Example-Q4_K_M.gguf": content()})
    case.hub.add("tuner/Example-GGUF", {"Example-Q4_K_M.gguf": content("another")})
    await case.pull(EXAMPLE)
    done = await case.pull("tuner/Example-GGUF")
    assert done.model_id == "tuner/Example-GGUF/Example-Q4_K_M"
    assert [entry.id for entry in case.listed()] == ["Example-Q4_K_M", done.model_id]


async def test_a_newer_commit_takes_the_unchanged_files_along(case):
    case.hub.add(EXAMPLE, {"Example-Q4_K_M.gguf": content(), "Example-Q8_0.gguf": content("b")})
    await case.pull(EXAMPLE)
    await case.pull(f"{EXAMPLE}:Q8_0")
    case.hub.add(EXAMPLE, {"Example-Q4_K_M.gguf": content("newer"), "Example-Q8_0.gguf": content("b")})
    assert (await case.pull(EXAMPLE)).fetched_bytes == len(content("newer"))
    assert {entry.id: entry.facts.digest for entry in case.listed()}.keys() == {
        "Example-Q4_K_M",
        "Example-Q8_0",
    }
    assert (await case.find(f"{EXAMPLE}:Q8_0")).offer.missing_bytes == 0


async def test_copies_take_the_place_of_links_where_the_user_wants_none(case):
    case.environment["HF_HUB_DISABLE_SYMLINKS"] = "1"
    case.hub.add(EXAMPLE, {"a/Example-Q4_K_M.gguf": content(), "b/Other-Q8_0.gguf": content()})
    await case.pull(EXAMPLE)
    await case.pull(f"{EXAMPLE}:Q8_0")
    files = list(case.cache.glob("models--*/snapshots/*/*/*"))
    assert [path.read_bytes() for path in files] == [content()] * 2
    assert not any(path.is_symlink() for path in files)
    assert case.blobs() == {}


@pytest.mark.parametrize("mode", [0o755, 0o700])
async def test_who_may_read_the_cache_may_read_what_comes_into_it(case, mode):
    case.cache.mkdir()
    case.cache.chmod(mode)
    case.hub.add(EXAMPLE, {"sub/Example-Q4_K_M.gguf": content()})
    await case.pull(EXAMPLE)
    places = (*case.cache.glob("models--*/**/*"), *case.cache.glob(".locks/*/*"))
    made = [path for path in places if not path.is_symlink()]
    assert {path.stat().st_mode & 0o777 for path in made if path.is_dir()} == {mode}
    assert {path.stat().st_mode & 0o777 for path in made if path.is_file()} == {mode & 0o666}


async def test_a_new_cache_is_its_owners_alone(case):
    case.hub.add(EXAMPLE, {"Example-Q4_K_M.gguf": content()})
    await case.pull(EXAMPLE)
    assert case.cache.stat().st_mode & 0o777 == 0o700
