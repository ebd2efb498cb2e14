"""Pulls from a real registry: what is told before, what lies on the disk after, and that it chats at once."""

import json
import shutil

import pytest

from autotuned.core.download import DownloadPhase, Offer
from autotuned.core.errors import ModelNotFound
from autotuned.engines.llamacpp.discovery import POCKET
from tests.engines.downloading import blob, is_bare, pull, reference
from tests.engines.shapes import SHAPE
from tests.fakes import docker_registry as registries
from tests.fakes.ollama.model_store import add_model, blob_path
from tests.suites.engine_case import answer, ask, text_of

TEMPLATE = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
PARAMETERS = {"temperature": 0.6, "stop": ["<|im_end|>"]}


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A store with the models that are pushed."""
    folder = tmp_path_factory.mktemp("origin")
    add_model(folder, "pocket:1m", template=TEMPLATE, parameters=PARAMETERS)
    return folder


@pytest.fixture(scope="module")
def registry(tmp_path_factory, origin):
    registries.require_docker_registry()
    with registries.docker_registry(tmp_path_factory.mktemp("registry")) as running:
        running.push(origin, "pocket:1m")
        yield running


@pytest.fixture
def downloader(make_downloader, registry):
    return make_downloader(registry.url)


@pytest.fixture
def layers(origin):
    """The manifest that was pushed: the kind of each file, its digest, its size."""
    text = (origin / "manifests" / "registry.ollama.ai" / "library" / "pocket" / "1m").read_text()
    manifest = json.loads(text)
    return [manifest["config"], *manifest["layers"]]


async def test_it_tells_what_it_would_fetch_before_it_does(downloader, paths, layers):
    size_bytes = sum(layer["size"] for layer in layers)
    download = await downloader.find(reference("pocket:1m"))
    free_bytes = shutil.disk_usage(paths.data).free
    try:
        offer = download.offer
    finally:
        await download.close()
    assert offer == Offer(
        model_id="pocket:1m",
        engine="llamacpp",
        quantization="Q8_0",
        size_bytes=size_bytes,
        weights_bytes=POCKET.stat().st_size,
        missing_bytes=size_bytes,
        files_count=5,
        folder=str(paths.registry_store),
        free_bytes=offer.free_bytes,
    )
    assert offer.free_bytes == pytest.approx(free_bytes, rel=0.2)
    assert not paths.registry_store.exists()


async def test_the_store_holds_what_the_registry_holds(downloader, paths, layers, origin):
    steps = []
    downloaded = await pull(downloader, "pocket:1m", steps)
    size_bytes = sum(layer["size"] for layer in layers)
    assert (downloaded.model_id, downloaded.engine) == ("pocket:1m", "llamacpp")
    assert (downloaded.size_bytes, downloaded.fetched_bytes) == (size_bytes, size_bytes)
    for layer in layers:
        content = blob_path(paths.registry_store, layer["digest"]).read_bytes()
        assert content == blob_path(origin, layer["digest"]).read_bytes()
    kinds = {layer["mediaType"].rpartition(".")[2] for layer in layers}
    assert kinds >= {"model", "template", "params", "license"}
    assert steps[-1].phase is DownloadPhase.FINISHING
    assert (steps[-1].done_bytes, steps[-1].total_bytes) == (size_bytes, size_bytes)
    assert [step.done_bytes for step in steps] == sorted(step.done_bytes for step in steps)
    assert not list(paths.registry_store.rglob("*.part"))


async def test_what_was_pulled_is_listed_and_chats_at_once(downloader, make_engine, pocket):
    engine = make_engine()
    assert "pocket:1m" not in {entry.id for entry in await engine.models()}
    await pull(downloader, "pocket:1m")
    (entry,) = [entry for entry in await engine.models() if entry.id == "pocket:1m"]
    assert entry.problem == ""
    assert entry.facts.chat_template == pocket.facts.chat_template != ""
    model = await engine.load(entry, SHAPE, lambda _progress: None)
    assert text_of(await answer(model, ask("What is the capital of France?"))) == (
        "The capital of France is Paris."
    )


async def test_a_second_pull_fetches_nothing(downloader, paths):
    await pull(downloader, "pocket:1m")
    download = await downloader.find(reference("pocket:1m"))
    try:
        assert download.offer.missing_bytes == 0
        assert (await download.fetch(lambda _step: None)).fetched_bytes == 0
    finally:
        await download.close()


async def test_a_pull_goes_on_from_what_is_there(downloader, paths, layers):
    content = POCKET.read_bytes()
    path = blob(paths.registry_store, content)
    path.parent.mkdir(parents=True)
    path.with_name(path.name + ".part").write_bytes(content[:2_000_000])
    steps = []
    download = await downloader.find(reference("pocket:1m"))
    try:
        missing_bytes = download.offer.missing_bytes
        downloaded = await download.fetch(steps.append)
    finally:
        await download.close()
    size_bytes = sum(layer["size"] for layer in layers)
    assert missing_bytes == downloaded.fetched_bytes == size_bytes - 2_000_000
    assert DownloadPhase.VERIFYING in {step.phase for step in steps}
    assert path.read_bytes() == content


async def test_a_part_that_is_not_the_beginning_of_the_file_is_fetched_anew(downloader, paths, layers):
    content = POCKET.read_bytes()
    path = blob(paths.registry_store, content)
    path.parent.mkdir(parents=True)
    path.with_name(path.name + ".part").write_bytes(b"x" * 2_000_000)
    downloaded = await pull(downloader, "pocket:1m")
    assert downloaded.fetched_bytes == 2 * len(content) - 2_000_000 + sum(
        layer["size"] for layer in layers if layer["size"] != len(content)
    )
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["pocket:2m", "pickle:latest", "ada/pocket:1m"])
async def test_a_model_that_is_not_there_is_said_to_be_not_there(downloader, registry, paths, name):
    with pytest.raises(ModelNotFound, match=f'127.0.0.1:{registry.port} has no model "{name}"'):
        await downloader.find(reference(name))
    assert is_bare(paths.registry_store)


async def test_a_name_with_a_host_is_asked_there(make_downloader, registry, make_engine):
    downloader = make_downloader("https://nowhere.invalid")
    name = f"127.0.0.1:{registry.port}/library/pocket:1m"
    assert (await pull(downloader, name)).model_id == name
    assert name in {entry.id for entry in await make_engine().models()}
