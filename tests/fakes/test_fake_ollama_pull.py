"""The double of Ollama pulls like the original: what it tells, what it keeps, what it refuses."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.engines.processes import until
from tests.fakes.ollama.model_store import POCKET, add_model, blob_path, manifests_folder, twin_of_pocket
from tests.fakes.ollama.pull import TENSOR_MEDIA_TYPE
from tests.fakes.ollama.registry import Refusal, Registry
from tests.fakes.ollama.running import running_ollama
from tests.fakes.serving import free_port

POCKET_DIGEST = "sha256:" + hashlib.sha256(POCKET.read_bytes()).hexdigest()
POCKET_BYTES = POCKET.stat().st_size


@pytest.fixture
def registry(tmp_path):
    """A registry with the model "lab/pocket"."""
    add_model(tmp_path / "registry", "lab/pocket")
    with Registry(tmp_path / "registry") as serving:
        yield serving


@pytest.fixture
async def ollama(tmp_path, registry):
    """A double without a model, for which the registry is the usual one."""
    (tmp_path / "models").mkdir()
    async with running_ollama(tmp_path, models=tmp_path / "models", registry=registry.host) as running:
        yield running


async def streamed(ollama, **body):
    """The lines of a pull as they come."""
    async with ollama.client.stream("POST", "/api/pull", json=body) as answer:
        async for line in answer.aiter_lines():
            yield json.loads(line)


async def pulled(ollama, model="lab/pocket", **body):
    """All lines of a pull."""
    return [line async for line in streamed(ollama, model=model, **body)]


async def names(ollama):
    return [model["name"] for model in (await ollama.client.get("/api/tags")).json()["models"]]


async def test_a_pull_tells_its_steps_and_brings_the_model(ollama, registry):
    registry.hold_after = POCKET_BYTES // 2
    lines = []
    async for line in streamed(ollama, model="lab/pocket"):
        lines.append(line)
        if line.get("completed"):
            registry.release()
    statuses = [line["status"] for line in lines if "digest" not in line]
    assert statuses == ["pulling manifest", "verifying sha256 digest", "writing manifest", "success"]
    layer = next(line for line in lines if line.get("digest") == POCKET_DIGEST)
    assert layer["status"] == f"pulling {POCKET_DIGEST[7:19]}"
    assert (layer["total"], layer["completed"]) == (POCKET_BYTES, POCKET_BYTES // 2)
    assert await names(ollama) == ["lab/pocket:latest"]
    # Names, checksums and bytes are the registry's.
    (theirs,) = manifests_folder(registry.models).glob("*/lab/pocket/latest")
    (ours,) = manifests_folder(ollama.models).glob("*/lab/pocket/latest")
    assert ours.read_bytes() == theirs.read_bytes()
    assert blob_path(ollama.models, POCKET_DIGEST).read_bytes() == POCKET.read_bytes()
    assert not list((ollama.models / "blobs").glob("*partial*"))


async def test_what_is_there_is_told_at_once_and_not_fetched(ollama, registry):
    await pulled(ollama)
    registry.requests.clear()
    lines = await pulled(ollama)
    assert [request for request in registry.requests if "blobs" in request[1]] == []
    layers = [line for line in lines if "digest" in line]
    assert len(layers) == 4  # the file, its template, its license, its configuration
    assert all(line["total"] == line["completed"] for line in layers)


async def test_a_pull_that_is_left_keeps_what_came_for_the_next(ollama, registry):
    registry.hold_after = POCKET_BYTES // 2
    async with aclosing(streamed(ollama, model="lab/pocket")) as lines:
        async for line in lines:
            if line.get("completed") == POCKET_BYTES // 2:
                break
    blob = blob_path(ollama.models, POCKET_DIGEST)
    note = blob.with_name(blob.name + "-partial-0")

    def is_kept():
        return json.loads(note.read_text() or "{}").get("Completed") == POCKET_BYTES // 2

    await until(is_kept, "what came is noted")
    assert json.loads(note.read_text()) == {
        "N": 0,
        "Offset": 0,
        "Size": POCKET_BYTES,
        "Completed": POCKET_BYTES // 2,
    }
    assert blob.with_name(blob.name + "-partial").stat().st_size == POCKET_BYTES
    assert not blob.exists()
    assert await names(ollama) == []
    registry.release()
    registry.sent_bytes = 0
    assert (await pulled(ollama))[-1] == {"status": "success"}
    assert registry.sent_bytes < POCKET_BYTES * 0.6
    assert blob.read_bytes() == POCKET.read_bytes()


async def test_two_pulls_share_a_download_that_outlives_one_of_them(ollama, registry):
    registry.hold_after = POCKET_BYTES // 2

    async def until_half(lines):
        async for line in lines:
            if line.get("completed") == POCKET_BYTES // 2:
                return

    async with aclosing(streamed(ollama, model="lab/pocket")) as second:
        async with aclosing(streamed(ollama, model="lab/pocket")) as first:
            await asyncio.gather(until_half(first), until_half(second))
        registry.release()
        rest = [line async for line in second]
    assert rest[-1] == {"status": "success"}
    assert registry.sent_bytes == sum(path.stat().st_size for path in (ollama.models / "blobs").iterdir())


async def test_connections_that_break_are_taken_up_where_they_broke(ollama, registry):
    registry.cuts = [POCKET_BYTES // 3, POCKET_BYTES // 3]
    assert (await pulled(ollama))[-1] == {"status": "success"}
    assert registry.sent_bytes == sum(path.stat().st_size for path in (ollama.models / "blobs").iterdir())


async def test_too_many_breaks_end_it(ollama, registry):
    registry.cuts = [10] * 6
    assert (await pulled(ollama))[-1] == {"error": "max retries exceeded: unexpected EOF"}


async def test_a_file_that_is_another_one_is_removed(ollama, registry):
    registry.wrong = {POCKET_DIGEST}
    error = (await pulled(ollama))[-1]["error"]
    wrong = hashlib.sha256(bytes([POCKET.read_bytes()[0] ^ 1]) + POCKET.read_bytes()[1:]).hexdigest()
    assert error == (
        f"digest mismatch, file must be downloaded again: want {POCKET_DIGEST}, got sha256:{wrong}"
    )
    assert not blob_path(ollama.models, POCKET_DIGEST).exists()
    assert await names(ollama) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
async def test_a_full_disk_ends_it_without_another_try(ollama, registry):
    blob = blob_path(ollama.models, POCKET_DIGEST)
    blob.parent.mkdir()
    partial = blob.with_name(blob.name + "-partial")
    partial.symlink_to("/dev/full")
    assert (await pulled(ollama))[-1] == {"error": f"write {partial}: no space left on device"}
    assert sum(path.startswith("/files") for _, path in registry.requests) == 2  # its size, and one try


async def test_a_newer_model_takes_the_place_of_the_older(ollama, registry, tmp_path):
    await pulled(ollama)
    add_model(registry.models, "lab/pocket", gguf=twin_of_pocket(tmp_path / "twin.gguf"))
    statuses = [line["status"] for line in await pulled(ollama)]
    assert statuses[-2:] == ["removing unused layers", "success"]
    assert not blob_path(ollama.models, POCKET_DIGEST).exists()
    assert await names(ollama) == ["lab/pocket:latest"]


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refusal("manifests", 500, b"<html>"), "pull model manifest: 500: <html>"),
        (Refusal("manifests", 429, b"slow down"), "pull model manifest: 429: slow down"),
        (
            Refusal("manifests", 200, b"<html>"),
            "pull model manifest: invalid character '<' looking for beginning of value",
        ),
        (
            Refusal("manifests", 401, headers={"WWW-Authenticate": 'Bearer realm="https://auth.example/t"'}),
            'pull model manifest: realm host "auth.example" does not match original host "{host}"',
        ),
        (
            Refusal("manifests", 401, headers={"WWW-Authenticate": 'Bearer realm="http://{host}/token"'}),
            "pull model manifest: unauthorized: access denied",
        ),
        (
            Refusal("manifests", 401, headers={"WWW-Authenticate": 'Bearer realm="http://{host}/nothing"'}),
            "pull model manifest: 404: 404 page not found",
        ),
        (
            Refusal("manifests", 401),
            'pull model manifest: realm host "" does not match original host "{host}"',
        ),
        (
            Refusal("manifests", 200, json.dumps({"layers": [{"mediaType": TENSOR_MEDIA_TYPE}]}).encode()),
            "this model requires MLX support, but the MLX runtime is not available",
        ),
        (Refusal("blobs", 404), "file does not exist"),
        (Refusal("files", 503, b"busy"), "max retries exceeded: EOF"),
    ],
)
async def test_what_the_registry_refuses_is_told(ollama, registry, refusal, error):
    headers = {name: text.replace("{host}", registry.host) for name, text in refusal.headers.items()}
    registry.refusals = [Refusal(refusal.where, refusal.status, refusal.body, headers)]
    assert (await pulled(ollama))[-1] == {"error": error.replace("{host}", registry.host)}


async def test_a_registry_that_does_not_redirect_is_of_no_use(ollama, registry):
    registry.refusals = [Refusal("blobs", 200, b"x")]
    assert (await pulled(ollama))[-1] == {"error": "http: no Location header in response"}


async def test_other_registries_are_asked_with_tls_unless_told(ollama, registry):
    name = f"{registry.host}/lab/pocket"
    url = f"https://{registry.host}/v2/lab/pocket/manifests/latest"
    assert (await pulled(ollama, name))[-1] == {
        "error": f'pull model manifest: Get "{url}": tls: first record does not look like a TLS handshake'
    }
    assert (await pulled(ollama, f"http://{name}", insecure=True))[-1] == {"status": "success"}
    assert await names(ollama) == [f"{name}:latest"]


async def test_one_that_is_not_there_is_told(ollama):
    host = f"127.0.0.1:{free_port()}"
    assert (await pulled(ollama, f"{host}/a/b:c", insecure=True))[-1] == {
        "error": f'pull model manifest: Get "http://{host}/v2/a/b/manifests/c": '
        f"dial tcp {host}: connect: connection refused"
    }


async def test_names_that_are_none_or_unknown(ollama):
    for model in ("", "no/../pe:%"):
        answer = await ollama.client.post("/api/pull", json={"model": model})
        assert (answer.status_code, answer.json()) == (400, {"error": "invalid model name"})
    unknown = {"error": "pull model manifest: file does not exist"}
    assert await pulled(ollama, "nope") == [{"status": "pulling manifest"}, unknown]
    whole = await ollama.client.post("/api/pull", json={"model": "nope", "stream": False})
    assert (whole.status_code, whole.json()) == (500, unknown)
    whole = await ollama.client.post("/api/pull", json={"name": "lab/pocket", "stream": False})
    assert (whole.status_code, whole.json()) == (200, {"status": "success"})


async def test_names_are_taken_as_they_are_written_here(ollama, registry):
    await pulled(ollama)
    registry.requests.clear()
    await pulled(ollama, "LAB/Pocket:LATEST")
    assert registry.requests[0] == ("GET", "/v2/lab/pocket/manifests/latest")
    assert await names(ollama) == ["lab/pocket:latest"]


@pytest.mark.parametrize(
    ("model", "status", "error"),
    [
        ("", 400, "model is required"),
        ("no/../pe:%", 400, 'name "no/../pe:%" is invalid'),
        ("nope", 404, "model 'nope' not found"),
    ],
)
async def test_what_cannot_be_deleted(ollama, model, status, error):
    answer = await ollama.client.request("DELETE", "/api/delete", json={"model": model})
    assert (answer.status_code, answer.json()) == (status, {"error": error})
