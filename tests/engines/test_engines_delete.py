"""What the engines that run files delete, and what they leave to whom it belongs."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from autotuned.core.errors import Unsupported
from autotuned.core.settings import MlxSettings
from autotuned.engines.llamacpp.discovery import ModelFiles
from autotuned.engines.mlx.discovery import ModelFolders
from autotuned.engines.mlx.engine import MlxEngine
from autotuned.engines.stores.belonging import Places, Store
from autotuned.engines.stores.folders import StoreFolders
from tests.engines.processes import until
from tests.engines.store_files import PUBLIC, Hub, Ollama, content, mlx_folder

QUANTIZED = b'{"model_type": "llama", "quantization": {"bits": 4}}'


@pytest.fixture
def stores(tmp_path):
    return StoreFolders(
        ollama=(tmp_path / "ollama",), lmstudio=tmp_path / "lms", huggingface=tmp_path / "hub"
    )


@pytest.fixture
def own(paths):
    return paths.data / "models"


@pytest.fixture
def registry(paths):
    """The daemon's own store of registry models."""
    return Ollama(paths.registry_store)


@pytest.fixture
def hub(tmp_path):
    return Hub(tmp_path / "hub")


@pytest.fixture
def engine(make_engine, stores, tmp_path):
    (tmp_path / "elsewhere.gguf").write_bytes(content("elsewhere"))
    return make_engine(stores=stores, files=(tmp_path / "elsewhere.gguf",))


@pytest.fixture
def mlx(paths, clock, stores, tmp_path):
    """``mlx()`` is an MLX engine and its models by name; what it runs need not be installed to delete it."""
    configured = mlx_folder(tmp_path / "configured")
    engine = MlxEngine(paths=paths, settings=MlxSettings(), clock=clock, folders=(configured,), stores=stores)

    def run():
        folders = ModelFolders(
            engine="mlx", models_folder=paths.data / "models", folders=(configured,), stores=stores
        )
        return engine, {entry.id: entry for entry in folders.scan()}

    return run


async def models(engine):
    return {entry.id: entry for entry in await engine.models()}


async def test_a_file_of_the_models_folder_goes(engine, own):
    file = own / "mine.gguf"
    file.write_bytes(content("mine"))
    entry = (await models(engine))["mine"]
    assert await engine.delete(entry) == entry.size_bytes > 0
    assert not file.exists()
    assert "mine" not in await models(engine)
    assert await engine.delete(entry) == 0


async def test_all_parts_of_a_split_file_go_and_nothing_beside_them(engine, own):
    parts = [own / f"big-{number:05d}-of-00003.gguf" for number in (1, 2, 3)]
    beside = own / "big-00001-of-00002.gguf"
    for path in (*parts, beside):
        path.write_bytes(content(path.name))
    entry = next(each for each in (await models(engine)).values() if each.path == str(parts[0]))
    assert await engine.delete(entry) == sum(len(content(path.name)) for path in parts)
    assert [path for path in (*parts, beside) if path.exists()] == [beside]


async def test_of_a_link_the_link_goes(engine, own, tmp_path):
    target = tmp_path / "target.gguf"
    target.write_bytes(content("target"))
    (own / "link.gguf").symlink_to(target)
    assert await engine.delete((await models(engine))["link"]) == 0
    assert target.exists()
    assert not (own / "link.gguf").is_symlink()


async def test_a_file_with_another_name_frees_nothing(engine, own, tmp_path):
    (own / "one.gguf").write_bytes(content("one"))
    os.link(own / "one.gguf", tmp_path / "kept.gguf")
    assert await engine.delete((await models(engine))["one"]) == 0
    assert (tmp_path / "kept.gguf").read_bytes() == content("one")


async def test_a_damaged_file_goes_too(engine, own):
    (own / "broken.gguf").write_bytes(b"GGUF")
    entry = (await models(engine))["broken"]
    assert entry.problem
    assert await engine.delete(entry) == 4


async def test_a_registry_model_goes_without_what_others_share(engine, registry):
    first = registry.model(f"{PUBLIC}/one:8b", content("a"), registry.layer(b"template", "t"))
    registry.model(f"{PUBLIC}/two:8b", content("a"))
    registry.model(f"{PUBLIC}/three:8b", content("b"))
    found = await models(engine)
    first_bytes = first.stat().st_size
    assert await engine.delete(found["one:8b"]) == first_bytes + len(b"template")
    assert registry.path(content("a")).exists()
    assert not registry.path(b"template").exists()
    assert set(await models(engine)) == set(found) - {"one:8b"}
    assert await engine.delete(found["two:8b"]) >= len(content("a"))
    assert not registry.path(content("a")).exists()
    assert registry.path(content("b")).exists()
    assert await engine.delete(found["two:8b"]) == 0


async def test_a_registry_model_whose_name_is_taken_goes_by_its_file(engine, registry, own):
    (own / "one:8b.gguf").write_bytes(content("mine"))
    registry.model(f"{PUBLIC}/one:8b", content("theirs"))
    found = await models(engine)
    entry = found[str(registry.path(content("theirs")))]
    assert await engine.delete(entry) >= len(content("theirs"))
    assert set(await models(engine)) == set(found) - {entry.id}
    assert (own / "one:8b.gguf").exists()


async def test_of_several_names_one_has_to_be_named(engine, registry, own):
    for name in ("one", "two"):
        registry.model(f"{PUBLIC}/{name}:8b", content("theirs"))
    entry = (await models(engine))["one:8b"]
    taken = replace(entry, id=entry.path)
    with pytest.raises(Unsupported, match=r"several names .*: one:8b, two:8b; delete it by one"):
        await engine.delete(taken)
    assert registry.path(content("theirs")).exists()


async def test_a_file_of_the_hub_goes_with_its_content_and_leaves_the_others(engine, hub):
    data = {"a-Q4_gguf": content("q4"), "a-Q8_gguf": content("q8")}
    snapshot = hub.snapshot("lab/tiny", "r1", **data)
    found = await models(engine)
    entry = next(each for each in found.values() if each.path == str(snapshot / "a-Q4.gguf"))
    assert await engine.delete(entry) == len(content("q4"))
    assert [path.name for path in snapshot.iterdir()] == ["a-Q8.gguf"]
    assert set(await models(engine)) == set(found) - {entry.id}


async def test_what_comes_with_autotune_stays(engine):
    entry = (await models(engine))["pocket"]
    with pytest.raises(Unsupported, match='"pocket" comes with autotune and stays; '):
        await engine.delete(entry)
    assert (await models(engine))["pocket"] == entry


async def test_what_the_configuration_names_is_the_persons(engine, tmp_path):
    with pytest.raises(Unsupported, match=r"take .*elsewhere.gguf\" out of models.files, and delete it"):
        await engine.delete((await models(engine))["elsewhere"])
    assert (tmp_path / "elsewhere.gguf").exists()


async def test_what_is_ollamas_is_deleted_there(engine, tmp_path, own):
    ollama = Ollama(tmp_path / "ollama")
    ollama.model(f"{PUBLIC}/one:8b", content("a"))
    ollama.model(f"{PUBLIC}/taken:8b", content("b"))
    (own / "taken:8b.gguf").write_bytes(content("mine"))
    found = await models(engine)
    with pytest.raises(Unsupported, match='delete it there: "ollama rm one:8b"'):
        await engine.delete(found["one:8b"])
    with pytest.raises(Unsupported, match='delete it there: "ollama rm taken:8b"'):
        await engine.delete(found[str(ollama.path(content("b")))])
    assert ollama.path(content("a")).exists()
    assert await models(engine) == found


async def test_what_is_lm_studios_is_deleted_there(engine, tmp_path):
    file = tmp_path / "lms" / "lab" / "tiny" / "tiny.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(content("tiny"))
    with pytest.raises(Unsupported, match=r'delete it in its app, under "My Models"'):
        await engine.delete((await models(engine))["tiny"])
    assert file.exists()


async def test_a_scan_that_saw_what_is_gone_is_waited_for(engine, own, monkeypatch):
    file, may_end = own / "mine.gguf", threading.Event()
    file.write_bytes(content("mine"))
    entry = (await models(engine))["mine"]
    scan = ModelFiles.scan

    def slow_scan(files):
        found = scan(files)
        may_end.wait()
        return found

    monkeypatch.setattr(ModelFiles, "scan", slow_scan)
    scanning = asyncio.create_task(engine.models())
    await asyncio.sleep(0)
    deleting = asyncio.create_task(engine.delete(entry))
    await until(lambda: not file.exists(), "the file is gone")
    await asyncio.sleep(0.02)
    assert not deleting.done()
    may_end.set()
    await asyncio.gather(scanning, deleting)
    assert "mine" not in await models(engine)


async def test_a_folder_of_mlx_goes_whole(mlx, own):
    folder = mlx_folder(own / "tiny")
    (folder / "more").mkdir()
    (folder / "more" / "README.md").write_text("read me")
    engine, found = mlx()
    size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert await engine.delete(found["tiny"]) == size_bytes
    assert not folder.exists()
    assert own.exists()
    assert await engine.delete(found["tiny"]) == 0


@pytest.mark.parametrize("name", ["other.gguf", "other.GGUF"])
async def test_a_folder_of_mlx_with_another_model_in_it_stays(mlx, own, name):
    folder = mlx_folder(own / "tiny")
    (folder / name).write_bytes(content("other"))
    engine, found = mlx()
    with pytest.raises(Unsupported, match=rf'has another model in it; move ".*{name}" elsewhere first'):
        await engine.delete(found["tiny"])
    assert (folder / "config.json").exists()


async def test_of_a_linked_folder_the_link_goes(mlx, own, tmp_path):
    target = mlx_folder(tmp_path / "target")
    (own / "tiny").symlink_to(target)
    engine, found = mlx()
    assert await engine.delete(found["tiny"]) == 0
    assert not (own / "tiny").is_symlink()
    assert (target / "config.json").exists()


async def test_a_repository_of_the_hub_goes_whole(mlx, hub):
    files = {"config_json": QUANTIZED, "model_safetensors": b"weights", "tokenizer_json": b"{}"}
    hub.snapshot("mlx-community/tiny", "r1", **files)
    hub.snapshot("mlx-community/other", "r1", **files)
    engine, found = mlx()
    assert await engine.delete(found["mlx-community/tiny"]) == sum(map(len, files.values()))
    assert not hub.repository("mlx-community/tiny").exists()
    assert set(mlx()[1]) == set(found) - {"mlx-community/tiny"}


async def test_a_gguf_file_in_the_same_repository_of_the_hub_stays(mlx, engine, hub):
    files = {"config_json": QUANTIZED, "model_safetensors": b"weights", "tokenizer_json": b"{}"}
    snapshot = hub.snapshot("mlx-community/tiny", "r1", sub__tiny_GGUF=content("tiny"), **files)
    mlx_engine, found = mlx()
    assert await mlx_engine.delete(found["mlx-community/tiny"]) == sum(map(len, files.values()))
    entry = (await models(engine))["tiny"]
    assert entry.path == str(snapshot / "sub" / "tiny.GGUF")
    assert await engine.delete(entry) == len(content("tiny"))
    assert not hub.repository("mlx-community/tiny").exists()


async def test_other_folders_of_mlx_are_their_owners(mlx, tmp_path):
    theirs = mlx_folder(tmp_path / "lms" / "lab" / "tiny")
    engine, found = mlx()
    with pytest.raises(Unsupported, match=r'delete it in its app, under "My Models"'):
        await engine.delete(found["lab/tiny"])
    with pytest.raises(Unsupported, match=r"the configuration names"):
        await engine.delete(found["configured"])
    assert (theirs / "config.json").exists()


def test_the_innermost_place_counts():
    root = Path("/data")
    places = Places(
        models_folder=root / "models",
        registry=root / "models" / "registry",
        stores=StoreFolders(ollama=(root,), huggingface=root / "models" / "hub"),
    )
    assert {
        path: places.store_of(root / path)
        for path in ("models/a.gguf", "models/registry/blobs/b", "models/hub/c", "blobs/d", "modelsx/e")
    } == {
        "models/a.gguf": Store.MODELS_FOLDER,
        "models/registry/blobs/b": Store.REGISTRY,
        "models/hub/c": Store.HUGGING_FACE,
        "blobs/d": Store.OLLAMA,
        "modelsx/e": Store.OLLAMA,
    }
    assert places.store_of(Path("/elsewhere")) is Store.NOWHERE
