"""What Ollama's server says of a pull, and what becomes of it."""

from __future__ import annotations

import asyncio
import json

import pytest

from autotuned.core.download import DownloadPhase
from autotuned.core.errors import (
    DownloadCorrupt,
    EngineUnreachable,
    ModelNotFound,
    SourceDenied,
    SourceUnreachable,
    StorageFull,
    Unsupported,
)
from autotuned.engines.ollama.names import listed_name, registry_host
from autotuned.engines.ollama.pull_answers import PullReader, pull_problem
from tests.engines.ollama_servers import connected
from tests.engines.scripted_server import HEAD, LAST_CHUNK, chunk
from tests.engines.test_ollama_faults import VERSION, answering, tags
from tests.fakes.ollama.running import running_ollama
from tests.fakes.serving import free_port

SUCCESS = {"status": "success"}


def layer(digest, total, completed=0):
    return {"status": f"pulling {digest}", "digest": digest, "total": total, "completed": completed}


def encoded(*lines):
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def told(*lines):
    """A reader, and what it made of these lines."""
    reader = PullReader()
    return reader, [reader.feed(json.dumps(line).encode()) for line in lines]


async def pulled(url, clock, name="qwen3:8b", **settings):
    async with connected(url, clock, **settings) as engine:
        return await engine.pull(name, lambda _: None)


def test_layers_add_up():
    reader, progress = told(
        {"status": "pulling manifest"},
        layer("a", 100),
        layer("a", 100, 40),
        layer("b", 50, 50),
        layer("a", 100, 100),
        {"status": "verifying sha256 digest"},
        {"status": "writing manifest"},
        SUCCESS,
    )
    assert [(each.done_bytes, each.total_bytes) for each in progress] == [
        *((0, 0), (0, 100), (40, 100), (90, 150)),
        *[(150, 150)] * 4,
    ]
    assert [each.phase.value for each in progress] == [
        "resolving",
        *["downloading"] * 4,
        "verifying",
        *["finishing"] * 2,
    ]
    assert reader.is_finished
    assert reader.fetched_bytes == 100  # the second was there


def test_a_resumed_layer_counts_what_came_now():
    reader, _ = told(layer("a", 100, 60), layer("a", 100, 100))
    assert reader.fetched_bytes == 40


def test_numbers_that_make_no_sense_do_no_harm():
    reader, progress = told(layer("a", 100, 900), layer("b", -5, 3), {"status": "something new", "x": 1})
    assert [(each.done_bytes, each.total_bytes) for each in progress] == [(100, 100)] * 3
    assert progress[-1].phase is DownloadPhase.DOWNLOADING
    assert not reader.is_finished


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("pull model manifest: file does not exist", ModelNotFound),
        ("invalid model name", ModelNotFound),
        (
            'pull model manifest: 400: {"error":"The specified tag is not a valid quantization scheme."}',
            ModelNotFound,
        ),
        ("pull model manifest: unauthorized: access denied", SourceDenied),
        ('pull model manifest: realm host "hf.co" does not match original host "x"', SourceDenied),
        ("pull model manifest: 403: ", SourceDenied),
        ("401", SourceDenied),
        ("digest mismatch, file must be downloaded again: want sha256:a, got sha256:b", DownloadCorrupt),
        ("write /models/blobs/sha256-a-partial: no space left on device", StorageFull),
        ("write C:\\blobs\\sha256-a-partial: There is not enough space on the disk.", StorageFull),
        ("open /models/blobs/sha256-a-partial: permission denied", StorageFull),
        ("mkdir /models/blobs: read-only file system", StorageFull),
        (
            'pull model manifest: 412: {"errors":[{"message":"The model you are attempting to pull requires a '
            'newer version of Ollama."}]}',
            Unsupported,
        ),
        ("this model requires MLX support, but the MLX runtime is not available", Unsupported),
        ("max retries exceeded: EOF", SourceUnreachable),
        ("pull model manifest: 503: <html>Forbearance</html>", SourceUnreachable),
        (
            'Get "https://x:4010/v2/": dial tcp 127.0.0.1:403: connect: connection refused',
            SourceUnreachable,
        ),
        ("something that nobody has seen", SourceUnreachable),
    ],
)
def test_what_its_words_mean(words, kind):
    error = pull_problem(words, "qwen3:8b")
    assert type(error) is kind
    assert '"qwen3:8b"' in error.message
    assert error.message.endswith(".")


@pytest.mark.parametrize(
    ("name", "listed", "host"),
    [
        ("qwen3", "qwen3:latest", "registry.ollama.ai"),
        ("lab/tiny:1b", "lab/tiny:1b", "registry.ollama.ai"),
        ("registry.ollama.ai/library/qwen3:8b", "qwen3:8b", "registry.ollama.ai"),
        ("hf.co/lab/tiny-GGUF:Q4_K_M", "hf.co/lab/tiny-GGUF:Q4_K_M", "hf.co"),
        ("http://127.0.0.1:5000/lab/tiny", "127.0.0.1:5000/lab/tiny:latest", "127.0.0.1:5000"),
        ("no/../name", "no/../name", "registry.ollama.ai"),
    ],
)
def test_names_are_those_of_its_list(name, listed, host):
    assert (listed_name(name), registry_host(name)) == (listed, host)


async def test_only_registries_of_this_machine_and_those_that_are_named_go_without_tls(tmp_path, clock):
    other, here = "registry.example", f"127.0.0.1:{free_port()}"
    with_port, any_port = "10.255.255.1:5000", "10.255.255.2"
    async with (
        running_ollama(tmp_path) as server,
        connected(server.url, clock, insecure_hosts=(with_port, any_port)) as engine,
    ):
        for host in (with_port, f"{any_port}:5000", other, here):
            await server.order("error", path="/api/pull", message="gone", after=0)
            with pytest.raises(SourceUnreachable, match="gone"):
                await engine.pull(f"{host}/lab/tiny", lambda _: None)
        bodies = [each["body"] for each in (await server.page())["bodies"] if each["path"] == "/api/pull"]
    assert [body.get("insecure", False) for body in bodies] == [True, True, False, True]


async def test_what_comes_in_a_moment_was_fetched_though_nothing_was_told(clock):
    pages = VERSION | {
        "/api/tags": {"models": [{"name": "Qwen3:8b", "digest": "d", "size": 1000}]},
        "/api/show": {"modelfile": "", "capabilities": ["completion"], "model_info": {}},
        "/api/pull": encoded({"status": "pulling manifest"}, layer("a", 300, 300), SUCCESS),
    }
    async with answering(pages) as url:
        found = await pulled(url, clock)
    assert (found.model_id, found.size_bytes, found.fetched_bytes) == ("Qwen3:8b", 1000, 700)


async def test_a_model_that_is_not_listed_was_pulled_all_the_same(clock):
    """Models that embed are none of the engine's list."""
    lines = encoded(layer("a", 300, 0), layer("a", 300, 300), SUCCESS)
    async with answering(VERSION | {"/api/tags": tags(), "/api/pull": lines}) as url:
        found = await pulled(url, clock, "embed")
    assert (found.model_id, found.size_bytes, found.fetched_bytes) == ("embed:latest", 300, 300)


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (encoded({"status": "pulling manifest"}), "ended its answer too early"),
        (b"<html>\n", "cannot be read"),
        (encoded({"status": 5}), "cannot be read"),
    ],
)
async def test_an_answer_that_is_none_is_the_engines_fault(clock, page, words):
    async with answering(VERSION | {"/api/tags": tags(), "/api/pull": page}) as url:
        with pytest.raises(EngineUnreachable, match=f"{words}.*pull it again"):
            await pulled(url, clock)


async def test_silence_ends_a_pull(clock):
    async with answering(VERSION | {"/api/tags": tags(), "/api/pull": None}) as url:
        with pytest.raises(EngineUnreachable, match="fell silent"):
            await pulled(url, clock, silence_timeout_seconds=0.1)


async def test_while_it_verifies_it_may_say_nothing_for_long(clock):
    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        if b"/api/pull" in head:
            writer.write(HEAD + chunk(encoded({"status": "verifying sha256 digest"})))
            await asyncio.sleep(0.6)
            body = encoded(SUCCESS)
        else:
            writer.write(HEAD)
            body = json.dumps(VERSION["/api/version"] if b"version" in head else tags()).encode()
        writer.write(chunk(body) + LAST_CHUNK)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        found = await pulled(url, clock, silence_timeout_seconds=0.2)
    assert found.model_id == "qwen3:8b"


async def test_a_server_that_dies_in_mid_pull_is_unreachable(tmp_path, clock):
    async with running_ollama(tmp_path) as server, connected(server.url, clock) as engine:
        await server.order("close", path="/api/pull", after=1)
        with pytest.raises(EngineUnreachable, match=r"broke off its answer.*pull it again"):
            await engine.pull("pocket", lambda _: None)


async def test_a_server_that_is_not_there_pulls_and_deletes_nothing(clock, tmp_path):
    async with running_ollama(tmp_path) as server, connected(server.url, clock) as engine:
        (entry,) = await engine.models()
        await server.order("die", what="server")
        with pytest.raises(EngineUnreachable, match=r"Ollama (is gone|broke|is not there).*;"):
            await engine.pull("pocket", lambda _: None)
        with pytest.raises(EngineUnreachable):
            await engine.delete(entry)


async def test_a_disk_that_lets_nothing_go_is_told(tmp_path, clock):
    async with running_ollama(tmp_path) as server, connected(server.url, clock) as engine:
        (entry,) = await engine.models()
        words = "remove /models/manifests/x: read-only file system"
        await server.order("error", path="/api/delete", message=words, status=500)
        with pytest.raises(StorageFull, match=r"did not delete \"pocket:latest\" \(remove .*look after"):
            await engine.delete(entry)
        assert await engine.models() == (entry,)
