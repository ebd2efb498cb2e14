"""What is known of a model of the server, from its file or from its own words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuned.engines.endpoint import Endpoint
from autotuned.engines.gguf import read_header
from autotuned.engines.gguf_facts.facts import model_facts
from autotuned.engines.llamacpp.discovery import POCKET
from autotuned.engines.ollama.catalog import Catalog
from autotuned.engines.ollama.client import Details, Show, Tensor
from autotuned.engines.ollama.facts import blob_path, can_answer, facts_of_file, stop_sequences
from tests.engines.gguf_files import LLAMA, write
from tests.engines.ollama_servers import connected, entry_of
from tests.fakes.ollama.model_store import add_model
from tests.fakes.ollama.running import running_ollama


@pytest.fixture(scope="module")
async def server(tmp_path_factory):
    async with running_ollama(tmp_path_factory.mktemp("ollama")) as running:
        add_model(running.models, "twin", parameters={"stop": ["<|a|>", "b c"], "num_ctx": 2048})
        bert = write(running.models / "bert.gguf", LLAMA | {"llama.pooling_type": 1})
        add_model(running.models, "bert", gguf=bert)
        odd = write(running.models / "odd.gguf", {"general.architecture": "llama"})
        add_model(running.models, "odd", gguf=odd)
        yield running


def catalog(server, *, files_are_here):
    host, port = server.url.rpartition("/")[2].split(":")
    return Catalog(Endpoint(host=host, port=int(port)), files_are_here=files_are_here)


async def test_a_file_has_the_facts_that_it_has_for_llamacpp(server, clock):
    async with connected(server.url, clock) as engine:
        entry = await entry_of(engine)
    assert entry.facts == model_facts((read_header(POCKET),), POCKET)
    assert (entry.engine, entry.key) == ("ollama", "ollama/pocket:latest")
    assert entry.path.endswith("/pocket:latest")
    assert entry.size_bytes >= POCKET.stat().st_size


async def test_elsewhere_the_server_tells_nearly_all_of_it(server):
    here, there = catalog(server, files_are_here=True), catalog(server, files_are_here=False)
    await here.look()
    await there.look()
    near, far = here.get("pocket:latest").facts, there.get("pocket:latest").facts
    assert far.digest.startswith("sha256:")
    assert len(far.digest) == len("sha256:") + 64
    assert far == replace(near, digest=far.digest, name=far.name)
    twin = there.get("twin:latest")
    assert twin.facts.digest == far.digest
    assert twin.runner_key == there.get("pocket:latest").runner_key
    assert twin.stop_sequences == ("<|a|>", "b c")


async def test_each_model_is_looked_at_once(server):
    found = catalog(server, files_are_here=False)
    before = (await server.page())["requests"].get("/api/show", 0)
    await found.look()
    after = (await server.page())["requests"]["/api/show"]
    await found.look()
    # Two each: in short, and with the arrays where the file is not here; one for the embedding model.
    assert after - before == 2 * 3 + 1
    assert (await server.page())["requests"]["/api/show"] == after


async def test_only_what_can_answer_is_listed(server):
    found = catalog(server, files_are_here=True)
    await found.look()
    names = {known.name for known in found.models}
    assert names == {"pocket:latest", "twin:latest", "odd:latest"}
    odd = found.get("odd:latest")
    assert odd.facts is None
    assert "block_count" in odd.problem


async def test_a_server_that_is_gone_has_no_models(server):
    found = catalog(server, files_are_here=True)
    await found.look()
    found.forget()
    assert found.models == ()
    assert found.get("pocket:latest") is None


@pytest.mark.parametrize(
    ("show", "answers"),
    [
        (Show(capabilities=["completion", "tools"]), True),
        (Show(capabilities=None), True),
        (Show(capabilities=["embedding"]), False),
        (Show(capabilities=["completion"], remote_host="https://far.example"), False),
    ],
)
def test_what_can_answer(show, answers):
    assert can_answer(show) is answers


def test_what_its_template_can_do_is_ollamas_to_say():
    show = Show(template="{{ .Prompt }}", capabilities=["completion", "thinking", "vision"])
    facts = facts_of_file(str(POCKET), show)
    assert (facts.calls_tools, facts.thinks, facts.modalities) == (False, True, ("text", "image"))
    assert facts.chat_template == "{{ .Prompt }}"
    old = facts_of_file(str(POCKET), Show())
    assert old == model_facts((read_header(POCKET),), POCKET)


def test_an_adapter_makes_it_another_model():
    plain, adapted = Show(), Show(modelfile="FROM x\nADAPTER /models/blobs/sha256-12")
    assert facts_of_file(str(POCKET), plain).digest != facts_of_file(str(POCKET), adapted).digest


def test_the_file_is_the_one_of_the_modelfile():
    text = "# FROM not this\nFROM /models/blobs/sha256-ab cd\nTEMPLATE x"
    assert blob_path(Show(modelfile=text)) == "/models/blobs/sha256-ab cd"
    assert blob_path(Show()) == ""
    parameters = 'stop                           "<|im_end|>"\nstop    "say \\"hi\\""\nnum_ctx   4096'
    assert stop_sequences(Show(parameters=parameters)) == ("<|im_end|>", 'say "hi"')


def test_the_shapes_of_answers_have_defaults():
    assert Show().details == Details()
    assert Tensor().shape == []
