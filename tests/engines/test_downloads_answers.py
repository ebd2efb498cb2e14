"""Registries that answer what they should not: what a person is told, and that nothing wrong is ever kept."""

import pytest

from autotuned.core.errors import (
    DownloadCorrupt,
    FieldInvalid,
    ModelNotFound,
    SourceDenied,
    SourceUnreachable,
    Unsupported,
)
from tests.engines.downloading import blob, content, details, is_bare, part, pull, reference
from tests.fakes.ollama.model_store import MODEL_MEDIA_TYPE
from tests.fakes.scripted_registry import HANG, digest_of, reply, scripted_registry

SIZE_BYTES = 300_000
CONTENT = content(SIZE_BYTES)
OTHER = content(SIZE_BYTES, seed=2)
PAGE = reply(200, b"<html>Please log in.</html>", Content_Type="text/html; charset=utf-8")
BYTES = "application/octet-stream"


@pytest.fixture
def registry():
    with scripted_registry(CONTENT) as running:
        yield running


@pytest.fixture
def downloader(make_downloader, registry):
    return make_downloader(registry.url, silence_timeout_seconds=0.5, patience_seconds=2.0)


def half_here(paths):
    """Puts half of the file there, as a pull that was broken off leaves it."""
    path = part(paths.registry_store, CONTENT)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[: SIZE_BYTES // 2])


async def test_a_file_with_another_hash_is_removed(downloader, registry, paths):
    registry.blobs[registry.model_digest] = OTHER
    with pytest.raises(DownloadCorrupt, match=f"sent one with {digest_of(OTHER)[7:]}; it was removed"):
        await pull(downloader, "some")
    assert not part(paths.registry_store, CONTENT).exists()
    assert not blob(paths.registry_store, CONTENT).exists()
    assert not list((paths.registry_store).rglob("latest"))
    assert len(registry.asked(registry.model_digest)) == 1


async def test_a_file_that_went_on_wrongly_is_fetched_once_more(downloader, registry, paths):
    half_here(paths)
    begin = SIZE_BYTES // 2
    registry.script(
        registry.model_digest,
        reply(206, OTHER[begin:], Content_Range=f"bytes {begin}-{SIZE_BYTES - 1}/{SIZE_BYTES}"),
    )
    await pull(downloader, "some")
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT
    assert [asked.headers.get("range") for asked in registry.asked(registry.model_digest)] == [
        f"bytes={begin}-",
        None,
    ]


@pytest.mark.parametrize("sent", [CONTENT[:-1], CONTENT + b"x"], ids=["short", "long"])
async def test_a_file_of_another_size_is_refused_by_its_head(downloader, registry, paths, sent):
    half_here(paths)
    registry.script(registry.model_digest, reply(200, sent))
    with pytest.raises(
        DownloadCorrupt, match=f"promised a file of 300,000 bytes and sends {len(sent):,}; nothing of that"
    ):
        await pull(downloader, "some")
    assert part(paths.registry_store, CONTENT).read_bytes() == CONTENT[: SIZE_BYTES // 2]


async def test_an_answer_without_a_length_that_never_ends_is_cut_off(downloader, registry, paths):
    registry.script(registry.model_digest, reply(200, CONTENT + b"x", Content_Length=None))
    with pytest.raises(DownloadCorrupt, match="promised a file of 300,000 bytes and sends more"):
        await pull(downloader, "some")
    assert not blob(paths.registry_store, CONTENT).exists()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (reply(200, CONTENT[:1000], Content_Length=SIZE_BYTES), "broke"),
        (reply(200, CONTENT[:1000], Content_Length=None), "sent less than it promised"),
        (reply(200, CONTENT[:1000], Content_Length=SIZE_BYTES) + HANG, "is silent"),
        (HANG, "is silent"),
        (b"", "broke"),
        (b"\x16\x03\x01 no http at all\r\n\r\n", "broke"),
        (reply(500, b"<html>Oops</html>", Content_Type="text/html"), "is busy (status 500)"),
        (reply(503), "is busy (status 503)"),
        (reply(429, Retry_After=1), "is busy (status 429)"),
        (reply(206, CONTENT[9:], Content_Range=f"bytes 9-299999/{SIZE_BYTES}"), "did not go on where"),
        (reply(416), "did not go on where"),
    ],
)
async def test_an_accident_is_waited_out(make_downloader, registry, paths, answer, why):
    registry.script(registry.model_digest, answer, answer)
    steps = []
    await pull(make_downloader(registry.url, silence_timeout_seconds=0.3), "some", steps)
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT
    assert len(registry.asked(registry.model_digest)) == 3
    (detail,) = set(details(steps))
    assert why in detail


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, CONTENT, Content_Type=BYTES),
        reply(206, CONTENT[9:], Content_Range=f"bytes 9-299999/{SIZE_BYTES}"),
    ],
    ids=["from the beginning", "from an earlier byte"],
)
async def test_what_is_sent_again_is_passed_over(downloader, registry, paths, answer):
    half_here(paths)
    registry.script(registry.model_digest, answer)
    steps = []
    downloaded = await pull(downloader, "some", steps)
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT
    assert downloaded.fetched_bytes >= SIZE_BYTES - 9
    assert details(steps) == []


@pytest.mark.parametrize(
    "answer",
    [
        reply(416),
        reply(206, CONTENT[-9:], Content_Range=f"bytes 299991-299999/{SIZE_BYTES}"),
        reply(206, CONTENT[SIZE_BYTES // 2 :]),
    ],
    ids=["no ranges", "a later byte", "no byte named"],
)
async def test_a_registry_that_cannot_go_on_is_asked_for_the_whole_and_nothing_is_lost(
    downloader, registry, paths, answer
):
    half_here(paths)
    registry.script(registry.model_digest, answer)
    await pull(downloader, "some")
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT
    assert [asked.headers.get("range") for asked in registry.asked(registry.model_digest)] == [
        f"bytes={SIZE_BYTES // 2}-",
        None,
    ]


async def test_a_registry_that_stays_busy_is_given_up_with_words(downloader, registry, paths):
    registry.script(registry.model_digest, *[reply(503)] * 100)
    half_here(paths)
    with pytest.raises(
        SourceUnreachable,
        match=r"did not send anything new for 2 seconds: 127\.0\.0\.1 is busy \(status 503\); what came is kept",
    ):
        await pull(downloader, "some")
    assert part(paths.registry_store, CONTENT).read_bytes() == CONTENT[: SIZE_BYTES // 2]


async def test_a_registry_that_asks_for_too_much_patience_is_told_at_once(downloader, registry):
    registry.script(registry.model_digest, *[reply(429, Retry_After=3600)] * 9)
    with pytest.raises(SourceUnreachable, match=r"asks to wait for 3,600 s: .* \(status 429\)"):
        await pull(downloader, "some")
    assert len(registry.asked(registry.model_digest)) == 1


@pytest.mark.parametrize("where", ["/manifests/", "/blobs/"])
@pytest.mark.parametrize(
    "answer",
    [PAGE, reply(511, b"Log in."), reply(418), reply(302, Location="http://portal.example")],
    ids=["page", "login", "teapot", "redirect"],
)
async def test_a_network_that_wants_a_login_is_told_so_at_once(downloader, registry, paths, where, answer):
    registry.script(where, *[answer] * 9)
    with pytest.raises(SourceUnreachable, match=r"does not answer as it should: .* wants a login first"):
        await pull(downloader, "some")
    assert len(registry.asked(where)) == 1
    assert is_bare(paths.registry_store)


async def test_a_page_in_the_midst_of_a_download_does_not_touch_what_came(downloader, registry, paths):
    half_here(paths)
    registry.script(registry.model_digest, PAGE)
    with pytest.raises(SourceUnreachable, match="a web page came where data was expected"):
        await pull(downloader, "some")
    assert part(paths.registry_store, CONTENT).read_bytes() == CONTENT[: SIZE_BYTES // 2]
    await pull(downloader, "some")
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT


async def test_a_configuration_that_is_not_what_was_promised_is_refused(downloader, registry, paths):
    digest = next(digest for digest in registry.blobs if digest != registry.model_digest)
    registry.blobs[digest] = b"{}"
    with pytest.raises(DownloadCorrupt, match=f"promised a file with the SHA-256 {digest[7:]}"):
        await downloader.find(reference("some"))
    assert is_bare(paths.registry_store)


@pytest.mark.parametrize(
    "text",
    [
        b"no json",
        b"[1]",
        b"[" * 100_000,
        b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "md5:1", "size": 1}]}',
        b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../x"}]}',
        b" " * (2 << 20),
    ],
    ids=["text", "list", "nested", "md5", "path", "huge"],
)
async def test_a_manifest_that_is_none_is_refused(downloader, registry, paths, text):
    registry.manifest = text
    with pytest.raises(SourceUnreachable, match="does not answer as it should"):
        await downloader.find(reference("some"))
    assert is_bare(paths.registry_store)


@pytest.mark.parametrize(
    ("kinds", "why"),
    [
        ([], "it has no GGUF file"),
        ([MODEL_MEDIA_TYPE, MODEL_MEDIA_TYPE], "it is split over several files"),
        ([MODEL_MEDIA_TYPE, "application/vnd.ollama.image.adapter"], "it is a model with an adapter"),
        (["application/vnd.ollama.image.tensor"], "it has no GGUF file"),
    ],
)
async def test_a_model_that_would_not_run_here_is_not_fetched(make_downloader, paths, kinds, why):
    layers = [
        {"mediaType": kind, "digest": digest_of(str(number).encode()), "size": 1}
        for number, kind in enumerate(kinds)
    ]
    with scripted_registry(CONTENT, {"schemaVersion": 2, "layers": layers}) as registry:
        with pytest.raises(Unsupported, match=f"^llama.cpp cannot run some:latest: {why}"):
            await make_downloader(registry.url).find(reference("some"))
        assert registry.asked("/blobs/") == []


@pytest.mark.parametrize("url", ["http://a:b:c", "https://", "http://[x", "nothing"])
async def test_an_address_that_is_none_is_said_to_be_none(make_downloader, url):
    with pytest.raises(FieldInvalid, match=r"is no address of a registry; correct pull\.registry_url"):
        await make_downloader(url).find(reference("some"))


@pytest.mark.parametrize("name", ["", "a b", "../../x", "a/b/c/d", "some:", "hó/x", "x" * 100])
async def test_a_name_that_is_none_is_refused_before_anybody_is_asked(downloader, registry, name):
    with pytest.raises(FieldInvalid, match="is no name of a registry"):
        await downloader.find(reference(name))
    assert registry.requests == []


async def test_a_manifest_that_is_missing_is_a_model_that_is_missing(downloader, registry):
    registry.script("/manifests/", reply(404, b"<html>nothing</html>", Content_Type="text/html"))
    with pytest.raises(ModelNotFound, match='has no model "some:latest"; check the name and its tag'):
        await downloader.find(reference("some"))


async def test_a_file_that_is_missing_is_the_registrys_fault(downloader, registry):
    del registry.blobs[registry.model_digest]
    with pytest.raises(SourceUnreachable, match="it has not the files that it promises"):
        await pull(downloader, "some")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_model_that_is_not_for_everybody_is_said_to_be_so(downloader, registry, status):
    registry.script("/manifests/", reply(status))
    with pytest.raises(SourceDenied, match="gives this model to some only"):
        await downloader.find(reference("some"))
