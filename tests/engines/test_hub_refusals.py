"""What a hub refuses or gets wrong, in words that say what to do; nothing of it is left behind."""

import pytest

from autotuned.core.download import Reference, Source
from autotuned.core.errors import (
    DownloadCorrupt,
    FieldInvalid,
    ModelNotFound,
    SourceDenied,
    SourceUnreachable,
    StorageFull,
    Unsupported,
)
from tests.engines.downloading import reference
from tests.engines.hub_case import EXAMPLE, MLX, Case, pocket_mlx
from tests.engines.store_files import content
from tests.fakes.hub import FakeHub, Fault

PAGE = b"<!doctype html><html><body>Welcome to our Wi-Fi!</body></html>"
HTML = {"Content-Type": "text/html; charset=utf-8"}
MINE = "hf_mine"


@pytest.fixture
def case(tmp_path):
    with FakeHub() as hub:
        hub.add(EXAMPLE, {"Example-Q4_K_M.gguf": content(), "Example-UD-Q2_K_XL.gguf": content("b")})
        yield Case(hub, tmp_path)


async def refusal(case, kind, text=EXAMPLE):
    """The words of a pull that is refused before anything of the model is fetched."""
    with pytest.raises(kind) as refused:
        await case.find(text)
    assert not case.cache.exists()
    return refused.value.message


@pytest.mark.parametrize("token", ["", MINE])
async def test_a_repository_that_is_not_there(case, token):
    case.hub.tokens[MINE] = set()
    case.environment["HF_TOKEN"] = token
    assert await refusal(case, ModelNotFound, "someone/Nothing") == (
        f'There is no repository "someone/Nothing" at {case.hub.url}, or it is private; check the name, or set '
        "HF_TOKEN to a token that may read it."
    )


@pytest.mark.parametrize("text", [None, "no certificate"])
@pytest.mark.parametrize(
    "wanted",
    [reference("some"), Reference(source=Source.HUGGING_FACE, name=EXAMPLE)],
    ids=["registry", "hub"],
)
async def test_certificates_that_cannot_be_read_are_no_fault_of_the_disk(case, wanted, text):
    certificates = case.folder / "certificates.pem"
    if text is not None:
        certificates.write_text(text)
    case.environment["SSL_CERT_FILE"] = str(certificates)
    with pytest.raises(SourceUnreachable, match=r"certificates cannot be read .*; correct SSL_CERT_FILE"):
        await case.downloader.find(wanted)


async def test_a_private_repository_is_given_to_its_token(case):
    case.hub.repositories[EXAMPLE].private = True
    await refusal(case, ModelNotFound)
    case.hub.tokens[MINE] = set()
    case.environment["HF_TOKEN"] = MINE
    assert (await case.pull(EXAMPLE)).model_id == "Example-Q4_K_M"


@pytest.mark.parametrize("token", ["", MINE])
async def test_terms_that_were_not_accepted(case, token):
    case.hub.repositories[EXAMPLE].gated = True
    case.hub.tokens[MINE] = set()
    case.environment["HF_TOKEN"] = token
    assert await refusal(case, SourceDenied) == (
        f'"{EXAMPLE}" is given to those who accept its terms; accept them at {case.hub.url}/{EXAMPLE} and set '
        'HF_TOKEN to a token of that account, or save one with "hf auth login".'
    )


async def test_who_accepted_the_terms_gets_it_and_the_token_goes_to_the_hub_alone(case):
    case.hub.repositories[EXAMPLE].gated = True
    case.hub.tokens[MINE] = {EXAMPLE}
    saved = case.folder / ".cache" / "huggingface" / "token"
    saved.parent.mkdir(parents=True)
    saved.write_text(MINE)
    await case.pull(EXAMPLE)
    assert {request.headers["authorization"] for request in case.hub.asked("resolve")} == {f"Bearer {MINE}"}
    assert [request for request in case.hub.asked("cdn") if "authorization" in request.headers] == []


async def test_a_token_that_nobody_gave_out(case):
    case.environment |= {"HF_TOKEN": "hf_wrong"}
    assert await refusal(case, SourceDenied) == (
        f"{case.hub.url} does not know the token that was sent; set HF_TOKEN to a valid one, or save one with "
        '"hf auth login".'
    )


async def test_names_and_quantizations_that_are_none(case):
    assert "no name of a repository; write hf:publisher/repository." in await refusal(
        case, FieldInvalid, "a/b/c"
    )
    assert await refusal(case, FieldInvalid, f"{EXAMPLE}:Q8_0") == (
        f'model: "{EXAMPLE}" has no file with the quantization "Q8_0"; it has Q4_K_M, UD-Q2_K_XL.'
    )


async def test_weights_for_other_programs(case):
    files = pocket_mlx()
    case.hub.add("someone/Plain", files)
    case.hub.add("someone/Old", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    awq = files["config.json"].replace(
        b"{", b'{"quantization_config": {"quant_method": "awq", "bits": 4},', 1
    )
    case.hub.add("someone/Model-AWQ", files | {"config.json": awq})
    for name in ("someone/Plain", "someone/Old", "someone/Model-AWQ"):
        assert await refusal(case, Unsupported, name) == (
            f'"{name}" has neither GGUF files nor weights that were converted for MLX; take a repository with '
            'GGUF files of the same model, "autotunectl models --registry" lists some.'
        )


@pytest.mark.parametrize("where", ["api", "resolve", "cdn"])
@pytest.mark.parametrize("status", [429, 500])
async def test_a_hub_that_is_busy_for_a_moment_is_asked_again(case, where, status):
    case.hub.faults = [
        Fault(where=where, status=status, body=PAGE, headers={**HTML, "Retry-After": "1"}),
        Fault(where=where, status=status),
    ]
    assert (await case.pull(EXAMPLE)).fetched_bytes == len(content())
    assert case.hub.faults == []


async def test_a_limit_that_lasts_longer_than_anybody_waits(case):
    headers = {"RateLimit": '"api";r=0;t=240', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    case.hub.faults = [Fault(where="api", status=429, headers=headers)]
    assert "asks to wait for 240 s: the hub is busy (429 Too Many Requests)" in await refusal(
        case, SourceUnreachable
    )


async def test_a_hub_that_stays_broken(case):
    case.hub.faults = [Fault(where="api", status=502, body=PAGE, headers=HTML)] * 100
    case.settings["patience_seconds"] = 1.0
    assert "cannot be asked: the hub is busy (502 Bad Gateway)" in await refusal(case, SourceUnreachable)


async def test_a_page_in_the_place_of_the_list(case):
    case.hub.faults = [Fault(where="api", status=200, body=PAGE, headers=HTML)]
    assert "look whether this network wants a login" in await refusal(case, SourceUnreachable)


@pytest.mark.parametrize(
    "answer", [b"[]", b"{}", b'{"id": "a/b", "sha": "../../up", "siblings": []}', b"null"]
)
async def test_an_answer_that_is_no_list(case, answer):
    case.hub.faults = [
        Fault(where="api", status=200, body=answer, headers={"Content-Type": "application/json"})
    ]
    assert "does not answer like a hub" in await refusal(case, SourceUnreachable)


async def test_a_page_in_the_place_of_the_file(case):
    case.hub.faults = [Fault(where="cdn", status=200, body=PAGE, headers=HTML)]
    with pytest.raises(SourceUnreachable, match="a web page came where data was expected"):
        await case.pull(EXAMPLE)
    assert case.listed() == []
    assert set(case.blobs().values()) == {b""}


async def test_an_address_that_has_run_out_is_asked_for_again(case):
    case.hub.faults = [Fault(where="cdn", status=403, body=b"<Error><Code>AccessDenied</Code></Error>")]
    assert (await case.pull(EXAMPLE)).fetched_bytes == len(content())


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
async def test_a_file_that_is_not_the_promised_one_is_removed(case, file):
    case.hub.add(MLX, pocket_mlx())
    download = await case.find(MLX)
    case.hub.wrong[file] = 1
    with pytest.raises(DownloadCorrupt, match="promised a file with the checksum"):
        await download.fetch(case.steps.append)
    assert not list(case.cache.glob("models--*/snapshots"))
    assert not list(case.cache.glob("models--*/blobs/*.incomplete"))
    assert (await case.pull(MLX)).model_id == MLX


async def test_a_disk_without_room_is_told_before_the_first_byte(case):
    case.settings["disk_margin_mib"] = 1 << 24
    download = await case.find(EXAMPLE)
    with pytest.raises(StorageFull, match=r"free [\d,.]+ GiB and pull again\.$"):
        await download.fetch(case.steps.append)
    assert case.hub.asked("cdn") == []
    assert not case.cache.exists()


async def test_a_cache_that_cannot_be_written(case):
    case.cache.write_text("no folder")
    with pytest.raises(StorageFull, match=r"hub"):
        await case.pull(EXAMPLE)


async def test_a_hub_without_encryption_is_not_asked(case):
    case.settings["huggingface_url"] = "http://hub.example"
    assert "not encrypted" in await refusal(case, SourceUnreachable)


@pytest.mark.parametrize("url", ["huggingface.co", "https://", "ftp://hub", "https://hub:port"])
async def test_an_address_that_is_none(case, url):
    case.settings["huggingface_url"] = url
    assert "check pull.huggingface_url and HF_ENDPOINT" in await refusal(case, SourceUnreachable)


async def test_the_environment_names_the_hub_and_keeps_it_offline(case):
    case.environment["HF_ENDPOINT"] = case.hub.url + "/"
    case.settings["huggingface_url"] = ""
    assert (await case.find(EXAMPLE)).offer.model_id == "Example-Q4_K_M"
    case.environment["HF_HUB_OFFLINE"] = "1"
    assert "unset HF_HUB_OFFLINE" in await refusal(case, SourceUnreachable)
