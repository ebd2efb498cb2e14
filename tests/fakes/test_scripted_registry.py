"""The scripted registry answers like the real one wherever a test does not have it answer otherwise."""

import json

import httpx
import pytest

from tests.engines.downloading import content
from tests.fakes.docker_registry import docker_registry, require_docker_registry
from tests.fakes.scripted_registry import HANG, digest_of, reply, scripted_registry

CONTENT = content(50_000)
ROOT = "/v2/library/some"


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    require_docker_registry()
    folder = tmp_path_factory.mktemp("real")
    (folder / "model.gguf").write_bytes(CONTENT)
    with docker_registry(folder) as running:
        running.push_file(folder / "model.gguf", "some")
        with httpx.Client(base_url=running.url, trust_env=False) as client:
            yield client


@pytest.fixture
def scripted():
    with scripted_registry(CONTENT) as running:
        yield running


@pytest.fixture
def fake(scripted):
    with httpx.Client(base_url=scripted.url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("begin", [None, 0, 1, 49_999])
def test_files_and_parts_of_them_come_alike(real, fake, begin):
    headers = {} if begin is None else {"Range": f"bytes={begin}-"}
    answers = [client.get(f"{ROOT}/blobs/{digest_of(CONTENT)}", headers=headers) for client in (real, fake)]
    assert len({answer.status_code for answer in answers}) == 1
    assert len({answer.content for answer in answers}) == 1
    for name in ("Content-Length", "Content-Range"):
        assert len({answer.headers.get(name) for answer in answers}) == 1, name


def test_a_file_that_is_not_there_is_missing_in_both(real, fake):
    answers = [client.get(f"{ROOT}/blobs/{digest_of(b'')}") for client in (real, fake)]
    assert [answer.status_code for answer in answers] == [404, 404]


def test_manifests_have_one_form_and_kind(real, fake):
    answers = [
        client.get(
            f"{ROOT}/manifests/latest",
            headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
        )
        for client in (real, fake)
    ]
    assert len({answer.headers["Content-Type"] for answer in answers}) == 1
    known, made = (json.loads(answer.content) for answer in answers)
    assert known.keys() == made.keys()
    assert known["layers"] == made["layers"]


def test_a_script_is_followed_once_and_then_it_is_right_again(fake, scripted):
    scripted.script("/blobs/", reply(503), reply(200, b"x"))
    answers = [fake.get(f"{ROOT}/blobs/{digest_of(CONTENT)}") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 200, 200]
    assert [answer.content for answer in answers] == [b"", b"x", CONTENT]
    assert len(scripted.asked("/blobs/")) == 3


def test_a_server_that_hangs_keeps_the_connection(fake, scripted):
    scripted.script("/blobs/", reply(200, b"half", Content_Length=8) + HANG)
    with pytest.raises(httpx.ReadTimeout):
        fake.get(f"{ROOT}/blobs/{digest_of(CONTENT)}", timeout=0.2)
