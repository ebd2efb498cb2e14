"""Tokens and redirects: who is asked for a token, who gets it, and who never does."""

import pytest

from autotuned.core.errors import SourceDenied, SourceUnreachable
from tests.engines.downloading import blob, content, details, pull, reference
from tests.fakes.scripted_registry import digest_of, reply, scripted_registry

CONTENT = content(100_000)
TOKEN = "anybody.may-read_this"  # noqa: S105 - no secret

GRANT = reply(200, b'{"token": "%s"}' % TOKEN.encode())


@pytest.fixture
def registry():
    with scripted_registry(CONTENT) as running:
        running.token = TOKEN
        yield running


@pytest.fixture
def issuer(registry):
    """Who hands out the tokens, at another address."""
    with scripted_registry(b"") as running:
        running.script("/token", *[GRANT] * 3)
        registry.challenge = (
            f'Bearer realm="{running.url}/token",service="models",scope="repository:library/some:pull"'
        )
        yield running


@pytest.fixture
def network():
    """Where the files lie: an address that is not the registry's."""
    with scripted_registry(CONTENT) as running:
        yield running


@pytest.fixture
def downloader(make_downloader, registry):
    return make_downloader(registry.url, patience_seconds=3.0)


async def find(downloader):
    """Asks what there is, and leaves it there."""
    download = await downloader.find(reference("some"))
    await download.close()


def redirect(registry, network, count=9):
    """Has the registry send who asks for the model's file there."""
    address = f"{network.url}/signed/{registry.model_digest}"
    registry.script(f"/blobs/{registry.model_digest}", *[reply(307, Location=address)] * count)


async def test_a_registry_that_wants_a_token_gets_one_that_is_for_everybody(
    downloader, registry, issuer, paths
):
    await pull(downloader, "some")
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT
    (asked,) = issuer.requests
    assert asked.path == "/token?service=models&scope=repository%3Alibrary%2Fsome%3Apull"
    assert "authorization" not in asked.headers
    assert [request.headers.get("authorization") for request in registry.requests] == [
        None,
        *[f"Bearer {TOKEN}"] * (len(registry.requests) - 1),
    ]


async def test_a_challenge_is_read_however_it_is_written(downloader, registry, issuer):
    registry.challenge = f"bearer Realm={issuer.url}/token, Service=models"
    await find(downloader)
    assert issuer.requests[0].path == "/token?service=models"


async def test_a_token_that_has_run_out_is_replaced(downloader, registry, issuer):
    download = await downloader.find(reference("some"))
    try:
        registry.token = "another"  # noqa: S105 - no secret
        issuer.script_instead("/token", reply(200, b'{"access_token": "another"}'))
        await download.fetch(lambda _step: None)
    finally:
        await download.close()
    assert registry.requests[-1].headers["authorization"] == "Bearer another"


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b'{"token": "wrong"}'),
        reply(200, b"{}"),
        reply(200, b"<html>"),
        reply(200, rb'{"token": "a\r\nb"}'),
        reply(403, b'{"token": "%s"}' % TOKEN.encode()),
    ],
)
async def test_who_gets_no_token_is_denied(downloader, registry, issuer, answer):
    issuer.script_instead("/token", answer)
    with pytest.raises(SourceDenied, match="let a program with an account there download it"):
        await downloader.find(reference("some"))
    assert len(issuer.requests) == 1


@pytest.mark.parametrize("challenge", ["", "Basic realm=x", "Bearer", 'Bearer service="x"'])
async def test_a_challenge_that_no_token_answers_is_a_denial(downloader, registry, challenge):
    registry.challenge = challenge
    with pytest.raises(SourceDenied):
        await downloader.find(reference("some"))


async def test_a_busy_issuer_is_waited_for(downloader, registry, issuer):
    issuer.script_instead("/token", reply(503), GRANT)
    await find(downloader)
    assert len(issuer.requests) == 2


async def test_a_token_is_never_shown_to_the_address_that_a_registry_redirects_to(
    downloader, registry, issuer, network, paths
):
    redirect(registry, network)
    await pull(downloader, "some")
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT
    (asked,) = network.requests
    assert "authorization" not in asked.headers
    assert "cookie" not in asked.headers


async def test_a_file_behind_a_redirect_goes_on_where_it_stopped(
    downloader, registry, issuer, network, paths
):
    redirect(registry, network)
    network.script("/signed/", reply(200, CONTENT[:40_000], Content_Length=len(CONTENT)))
    await pull(downloader, "some")
    assert blob(paths.registry_store, CONTENT).read_bytes() == CONTENT
    assert [asked.headers.get("range") for asked in network.requests] == [None, "bytes=40000-"]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_an_address_that_has_run_out_is_asked_for_anew(downloader, registry, issuer, network, status):
    redirect(registry, network)
    network.script("/signed/", reply(status))
    steps = []
    await pull(downloader, "some", steps)
    assert details(steps) == [f"127.0.0.1 refuses the file (status {status})"]
    assert len(registry.asked(registry.model_digest)) == 2
    assert len(issuer.requests) == 1


async def test_a_redirect_out_of_encryption_is_not_followed(downloader, registry, issuer):
    registry.script("/blobs/" + registry.model_digest, reply(307, Location="http://files.example/x"))
    with pytest.raises(
        SourceUnreachable, match=r"it sends on to http://files\.example, which is not encrypted; look"
    ):
        await pull(downloader, "some")


async def test_redirects_in_circles_end(downloader, registry, issuer):
    where = f"/blobs/{registry.model_digest}"
    registry.script(where, *[reply(307, Location=f"/v2/library/some{where}")] * 99)
    with pytest.raises(SourceUnreachable, match="it redirects more than 10 times"):
        await pull(downloader, "some")


async def test_a_registry_elsewhere_is_not_asked_without_encryption(make_downloader):
    with pytest.raises(SourceUnreachable, match=r"or add models\.example:5000 to pull\.insecure_hosts\.$"):
        await make_downloader("http://models.example:5000").find(reference("some"))


async def test_what_goes_through_the_network_names_the_program_and_wants_it_as_it_is(downloader, registry):
    registry.token = ""
    await find(downloader)
    asked = registry.requests[0]
    assert asked.headers["user-agent"] == "autotuned"
    assert asked.headers["accept-encoding"] == "identity"
    assert digest_of(CONTENT) == registry.model_digest
