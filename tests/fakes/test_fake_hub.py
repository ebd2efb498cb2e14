"""The fake hub answers as the original does: to its library, and to requests that the original refuses."""

import hashlib
from unittest.mock import patch

import httpx
import pytest
from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.fakes.hub import FakeHub, git_name

NAME = "someone/Example-GGUF"
WEIGHTS = bytes(range(256)) * 100
README = b"# Example\n" * 50
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def hub():
    with FakeHub() as fake, patch.object(constants, "HF_HUB_DISABLE_TELEMETRY", new=True):
        fake.add(NAME, {"README.md": README, "sub/example.gguf": WEIGHTS})
        yield fake


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token=False)


def test_the_library_reads_its_lists(hub, api):
    info = api.model_info(NAME, files_metadata=True)
    assert (info.id, info.sha, info.gated) == (NAME, hub.repositories[NAME].commit, False)
    readme, weights = info.siblings
    assert (readme.rfilename, readme.size, readme.blob_id, readme.lfs) == (
        "README.md",
        500,
        git_name(README),
        None,
    )
    assert (weights.rfilename, weights.lfs.sha256, weights.lfs.size) == (
        "sub/example.gguf",
        DIGEST,
        len(WEIGHTS),
    )
    assert [sibling.size for sibling in api.model_info(NAME).siblings] == [None, None]
    assert api.model_info(NAME, revision="main").sha == info.sha
    tree = {
        entry.path: entry for entry in api.list_repo_tree(NAME, recursive=True) if hasattr(entry, "blob_id")
    }
    assert tree["sub/example.gguf"].lfs.sha256 == DIGEST


def test_the_library_reads_what_a_file_is(hub):
    large = get_hf_file_metadata(hf_hub_url(NAME, "sub/example.gguf", endpoint=hub.url), token=False)
    small = get_hf_file_metadata(hf_hub_url(NAME, "README.md", endpoint=hub.url), token=False)
    assert (large.etag, large.size) == (DIGEST, len(WEIGHTS))
    assert (small.etag, small.size) == (git_name(README), len(README))
    assert large.commit_hash == small.commit_hash == hub.repositories[NAME].commit


def test_the_library_understands_its_refusals(hub, api):
    with pytest.raises(RevisionNotFoundError):
        api.model_info(NAME, revision="other")
    mine, wrong = "hf_mine", "hf_wrong"
    hub.tokens[mine] = set()
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("someone/Nothing", token=mine)
    # Whoever has no token is not told what there is; the library takes that so over TLS alone.
    with pytest.raises(HfHubHTTPError, match="Invalid username or password"):
        api.model_info("someone/Nothing")
    with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header"):
        api.model_info(NAME, token=wrong)
    hub.repositories[NAME].gated = True
    assert api.model_info(NAME).gated == "manual"
    with pytest.raises(GatedRepoError):
        get_hf_file_metadata(hf_hub_url(NAME, "README.md", endpoint=hub.url), token=False)


def test_the_cdn_wants_its_signature_and_no_token(hub):
    with httpx.Client() as client:
        address = client.get(f"{hub.url}/{NAME}/resolve/main/sub/example.gguf").headers["Location"]
        assert client.get(address).content == WEIGHTS
        assert client.get(address, headers={"Range": "bytes=100-199"}).content == WEIGHTS[100:200]
        assert client.get(address, headers={"Range": f"bytes={len(WEIGHTS)}-"}).status_code == 416
        assert client.get(address, headers={"Authorization": "Bearer x"}).status_code == 400
        assert client.get(address.partition("?")[0]).status_code == 403
        assert client.get(f"{hub.url}/{NAME}/resolve/main/missing").headers["X-Error-Code"] == "EntryNotFound"
        assert client.get(f"{hub.url}/other").status_code == 404


def test_small_files_are_compressed_for_who_takes_that(hub):
    address = f"{hub.url}/{NAME}/resolve/main/README.md"
    with httpx.Client(follow_redirects=True) as client:
        plain = client.get(address, headers={"Accept-Encoding": "identity"})
        packed = client.get(address, headers={"Accept-Encoding": "gzip"})
    assert plain.headers.get("Content-Encoding") is None
    assert packed.headers["Content-Encoding"] == "gzip"
    assert plain.content == packed.content == README
