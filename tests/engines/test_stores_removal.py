"""Deleting a model of our own store: what goes with it, and what somebody may still need stays."""

import contextlib
import fcntl
import os
import threading
import time

import pytest

from autotuned.core.errors import ModelNotFound
from autotuned.engines.stores.files import MAX_TEXT_BYTES
from autotuned.engines.stores.registry_names import blob_path, registry_name
from autotuned.engines.stores.removal import LEFT_BEHIND_SECONDS, delete_registry_model
from autotuned.engines.stores.store_lock import store_locked
from tests.engines.processes import until
from tests.engines.store_files import PUBLIC, Ollama, content

DATA, OTHER = content("one"), content("other")


@pytest.fixture
def store(tmp_path):
    return Ollama(tmp_path / "registry")


@pytest.fixture
def delete(store):
    """``delete(name)``: the bytes that it frees."""
    return lambda name: delete_registry_model(store.folder, name)


def age(path, seconds=LEFT_BEHIND_SECONDS + 60):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_model_goes_with_its_files_and_the_folders_that_are_empty_then(store, delete):
    text = b'{"temperature":0.6}'
    manifest = store.model(f"{PUBLIC}/one:8b", DATA, store.layer(text, "params"))
    freed_bytes = manifest.stat().st_size + len(DATA) + len(text)
    assert delete("one:8b") == freed_bytes
    assert not (store.folder / "manifests" / "registry.ollama.ai").exists()
    assert list((store.folder / "blobs").iterdir()) == []


@pytest.mark.parametrize("name", ["two", "one", "ada/one:8b", "../one:8b", "a b"])
def test_a_name_that_no_model_has_deletes_nothing(store, delete, name):
    manifest = store.model(f"{PUBLIC}/one:8b", DATA)
    with pytest.raises(ModelNotFound, match="nothing was deleted"):
        delete(name)
    assert manifest.exists()
    assert store.path(DATA).exists()


@pytest.mark.parametrize(
    "other",
    [
        lambda store: store.model(f"{PUBLIC}/one:latest", DATA),
        lambda store: store.model("hf.co/org/repo:Q4", OTHER, store.layer(DATA, "projector")),
        lambda store: store.manifest(f"{PUBLIC}/cut:off", f'{{"layers": [{{"digest": "{store.blob(DATA)}'),
        lambda store: store.manifest(f"{PUBLIC}/v2:8b", {"layers": [store.layer(DATA)]}, "manifests-v2"),
        lambda store: store.manifest(
            f"{PUBLIC}/list:8b",
            {"manifests": [{"digest": store.blob(b'{"layers": [{"digest": "%s"}]}' % digest(store))}]},
        ),
        lambda store: store.manifest(f"{PUBLIC}/huge:8b", " " * (MAX_TEXT_BYTES + 1)),
        lambda store: (store.folder / "manifests" / PUBLIC / "folder" / "8b").mkdir(parents=True),
    ],
    ids=["same", "shared", "damaged", "v2", "list", "too large to be read", "a folder"],
)
def test_a_file_that_another_manifest_may_mean_stays(store, delete, other):
    manifest = store.model(f"{PUBLIC}/one:8b", DATA)
    other(store)
    manifest_bytes = manifest.stat().st_size
    assert delete("one:8b") == manifest_bytes
    assert not manifest.exists()
    assert store.path(DATA).exists()


def digest(store):
    return store.blob(DATA).encode()


def test_of_a_list_of_manifests_all_goes(store, delete):
    child = b'{"layers": [{"digest": "%s"}]}' % digest(store)
    store.manifest(f"{PUBLIC}/one:8b", {"manifests": [{"runner": "ollama", "digest": store.blob(child)}]})
    delete("one:8b")
    assert list((store.folder / "blobs").iterdir()) == []


def test_a_damaged_model_goes_too(store, delete):
    manifest = store.manifest(f"{PUBLIC}/one:8b", "no manifest at all")
    assert delete("one:8b") == len("no manifest at all")
    assert not manifest.exists()


def test_what_is_being_fetched_stays(store, delete):
    store.model(f"{PUBLIC}/one:8b", DATA)
    part = store.path(DATA).with_name(store.path(DATA).name + ".part")
    part.write_bytes(b"half")
    descriptor = os.open(part, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        delete("one:8b")
        assert part.exists()
    finally:
        os.close(descriptor)


def test_what_was_fetched_for_nobody_goes_after_a_week(store, delete):
    store.model(f"{PUBLIC}/one:8b", DATA)
    store.model(f"{PUBLIC}/kept:8b", OTHER)
    blobs = store.folder / "blobs"
    old, young = blobs / f"sha256-{'a' * 64}.part", blobs / f"sha256-{'b' * 64}.part"
    for path in (old, young, blobs / "a note of somebody's"):
        path.write_bytes(bytes(1000))
    for path in (old, store.path(OTHER), blobs / "a note of somebody's"):
        age(path)
    age(young, LEFT_BEHIND_SECONDS - 60)
    assert delete("one:8b") >= len(DATA) + 1000
    assert {path.name for path in blobs.iterdir()} == {
        store.path(OTHER).name,
        young.name,
        "a note of somebody's",
    }


def test_a_download_that_ends_meanwhile_keeps_nothing_here(store, delete, monkeypatch):
    store.model(f"{PUBLIC}/one:8b", DATA)
    part = store.folder / "blobs" / f"sha256-{'a' * 64}.part"
    part.write_bytes(b"half")
    scandir = os.scandir

    @contextlib.contextmanager
    def slow_scandir(folder):
        with scandir(folder) as found:
            listed = list(found)
        part.unlink(missing_ok=True)
        yield listed

    monkeypatch.setattr(os, "scandir", slow_scandir)
    delete("one:8b")
    assert not store.path(DATA).exists()


async def test_a_deletion_waits_while_another_model_gets_its_name(store, delete):
    store.model(f"{PUBLIC}/one:8b", DATA)
    deleting = threading.Thread(target=delete, args=["one:8b"])
    with store_locked(store.folder):
        deleting.start()
        deleting.join(timeout=0.1)
        assert deleting.is_alive()
        store.model(f"{PUBLIC}/two:8b", DATA)
    await until(lambda: not deleting.is_alive(), "it is deleted")
    assert store.path(DATA).exists()


@pytest.mark.parametrize(
    ("text", "shown", "path"),
    [
        ("qwen3", "qwen3:latest", "registry.ollama.ai/library/qwen3/latest"),
        ("qwen3:8b", "qwen3:8b", "registry.ollama.ai/library/qwen3/8b"),
        ("Library/qwen3:8b", "qwen3:8b", "registry.ollama.ai/library/qwen3/8b"),
        ("Ollama.com/library/qwen3:8b", "qwen3:8b", "registry.ollama.ai/library/qwen3/8b"),
        ("ada/bot:v1", "ada/bot:v1", "registry.ollama.ai/ada/bot/v1"),
        ("HF.co/Org/Repo-GGUF:Q4_K_M", "hf.co/Org/Repo-GGUF:Q4_K_M", "hf.co/Org/Repo-GGUF/Q4_K_M"),
        ("localhost:5000/library/x:y", "localhost:5000/library/x:y", "localhost:5000/library/x/y"),
    ],
)
def test_a_name_has_one_place(tmp_path, text, shown, path):
    name = registry_name(text)
    assert name.shown == shown
    assert name.manifest(tmp_path) == tmp_path / "manifests" / path
    assert registry_name(shown) == name


@pytest.mark.parametrize(
    "text", ["", ":8b", "a:b:c", "/x", "x/", "../x", "a/../x", "a/b/c/d", "x:..", ".x", "a\n", "a" * 81]
)
def test_what_would_lead_elsewhere_is_no_name(text):
    assert registry_name(text) is None


@pytest.mark.parametrize("digest", ["", "sha256:", f"sha256:{'A' * 64}", f"md5:{'a' * 64}", "sha256:../../x"])
def test_a_file_without_a_sha256_has_no_place(tmp_path, digest):
    assert blob_path(tmp_path, digest) is None
