"""Ollama's store: which names it has, which files they stand for, and what a damaged one costs."""

import json
import os
from pathlib import Path

import pytest

from autotuned.engines.stores import ollama as module
from autotuned.engines.stores.ollama import OllamaStore
from tests.engines.store_files import MODEL, PUBLIC, Ollama, content


@pytest.fixture
def store(tmp_path):
    return Ollama(tmp_path / "ollama")


@pytest.fixture
def notes():
    """What was left out: the last part of the path, and why."""
    return []


@pytest.fixture
def found(store, notes):
    """``found()`` is the path for each name; every call goes through one memory."""
    reader = OllamaStore(store.folder)

    def run():
        notes.clear()
        files = reader.files(lambda path, reason: notes.append((Path(path).name, reason)))
        return {file.name: file.path for file in files}

    return run


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("registry.ollama.ai/library/qwen3:8b", "qwen3:8b"),
        ("registry.ollama.ai/library/qwen3:latest", "qwen3:latest"),
        ("registry.ollama.ai/ada/bot:v1", "ada/bot:v1"),
        ("hf.co/org/repo-GGUF:Q4_K_M", "hf.co/org/repo-GGUF:Q4_K_M"),
        ("localhost:5000/library/x:y", "localhost:5000/library/x:y"),
    ],
)
def test_a_model_has_the_name_that_ollama_shows(store, found, path, name):
    host, namespace, rest = path.split("/")
    model, tag = rest.split(":")
    data = content(name)
    folder = store.folder / "manifests" / host / namespace / model
    folder.mkdir(parents=True)
    (folder / tag).write_text(json.dumps({"layers": [store.layer(data)]}))
    assert found() == {name: str(store.path(data))}


def test_tags_that_share_a_file_are_all_there(store, found):
    for tag in ("8b", "latest"):
        store.model(f"{PUBLIC}/qwen3:{tag}", content())
    assert list(found()) == ["qwen3:8b", "qwen3:latest"]
    assert len(set(found().values())) == 1


def test_a_projector_does_not_hinder_and_an_adapter_does(store, found, notes):
    for kind in ("projector", "adapter", "license", "system"):
        layer = store.layer(kind.encode(), f"application/vnd.ollama.image.{kind}")
        store.model(f"{PUBLIC}/with-{kind}:1", content(kind), layer)
    assert list(found()) == ["with-license:1", "with-projector:1", "with-system:1"]
    assert notes == [("1", "it is a model with an adapter")]


def test_what_is_split_or_no_gguf_is_left_out(store, found, notes):
    store.model(f"{PUBLIC}/split:1", content("a"), store.layer(content("b")))
    tensor = store.layer(b"x", "application/vnd.ollama.image.tensor")
    store.manifest(f"{PUBLIC}/tensors:2", {"layers": [tensor]})
    store.manifest(f"{PUBLIC}/cloud:3", {"layers": None})
    assert found() == {}
    assert sorted(notes) == [
        ("1", "it is split over several files"),
        ("2", "it has no GGUF file"),
        ("3", "it has no GGUF file"),
    ]


@pytest.mark.parametrize("is_reference", [True, False])
def test_a_list_of_manifests_is_searched_for_the_one_of_gguf_files(store, found, is_reference):
    data = content()
    child = {"runner": "llamacpp", "layers": [store.layer(data)]}
    if is_reference:
        child = {"runner": "llamacpp", "digest": store.blob(json.dumps(child).encode())}
    store.manifest(f"{PUBLIC}/both:1", {"manifests": [{"runner": "mlx", "layers": []}, child]})
    store.manifest(f"{PUBLIC}/other:1", {"manifests": [{"runner": "mlx", "layers": [store.layer(data)]}]})
    assert found() == {"both:1": str(store.path(data))}


def test_links_to_manifests_come_before_old_manifests(store, found):
    old, new = content("old"), content("new")
    store.model(f"{PUBLIC}/m:1", old)
    manifest = json.dumps({"layers": [store.layer(new)]}).encode()
    store.blob(manifest)
    blob = store.path(manifest)
    link = store.folder / "manifests-v2" / "ollama.com" / "library" / "m" / "1"
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    assert found() == {"m:1": str(store.path(new))}


@pytest.mark.parametrize(
    "damage",
    [
        "", "{", "[]", "null", '"x"', '{"layers": 1}', '{"layers": [1]}', '{"layers": [{"size": "x"}]}',
        json.dumps({"layers": [{"mediaType": MODEL, "digest": "sha256:../../etc/passwd"}]}),
        json.dumps({"layers": [{"mediaType": MODEL, "digest": f"sha256-{'a' * 64}/x"}]}),
        json.dumps({"manifests": [{"runner": "ollama", "digest": f"sha256:{'0' * 64}"}]}),
        '{"manifests": ' * 20_000,
        "[" * 200_000,
        '{"layers": "' + "x" * (1 << 20) + '"}',
    ],
)  # fmt: skip
def test_a_damaged_manifest_costs_a_note(store, found, notes, damage):
    store.model(f"{PUBLIC}/good:1", content())
    store.manifest(f"{PUBLIC}/bad:x", damage)
    assert list(found()) == ["good:1"]
    assert "x" in {name for name, _ in notes}


def test_bytes_that_are_no_text_cost_a_note(store, found, notes):
    store.manifest(f"{PUBLIC}/bad:x", "").write_bytes(b'{"layers": "\xff\xfe"}')
    assert found() == {}
    assert notes == [("x", "its manifest is damaged")]


def test_pipes_loops_and_strange_folders_cost_at_most_a_note(store, found, notes):
    folder = store.folder / "manifests" / "registry.ollama.ai" / "library" / "m"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "folder").mkdir()
    (folder / ".hidden").write_text("{}")
    (store.folder / "manifests" / "registry.ollama.ai" / "again").symlink_to(folder.parent)
    (store.folder / "manifests" / "file").write_text("x")
    assert found() == {}
    assert {"pipe", "loop", "folder"} <= {name for name, _ in notes}


def test_a_folder_that_may_not_be_entered_costs_a_note(unprivileged, read_only_folder):
    notes = []
    read_only_folder.chmod(0)
    with unprivileged():
        assert list(OllamaStore(read_only_folder).files(lambda *note: notes.append(note))) == []
    assert notes[-1] == (read_only_folder / "manifests", "it cannot be read: Permission denied")


def test_a_folder_that_is_not_there_is_empty(tmp_path):
    assert list(OllamaStore(tmp_path / "none").files(pytest.fail)) == []


def test_a_manifest_is_read_again_only_when_it_changed(store, found, monkeypatch):
    path = store.model(f"{PUBLIC}/m:1", content("a"))
    first = found()
    reads = []
    original = module.read_text
    monkeypatch.setattr(module, "read_text", lambda *each: reads.append(each) or original(*each))
    assert found() == first
    assert reads == []
    store.model(f"{PUBLIC}/m:1", content("a new one"))
    os.utime(path, ns=(1, 1))
    assert found() != first
    path.unlink()
    assert found() == {}
