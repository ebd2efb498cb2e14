"""What servers say of themselves, their tokens, and stop sequences that are found here."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.engine import EngineState
from autotuned.core.generation import EngineFinished, FinishReason, TextDelta, TokenLogprob, Usage
from autotuned.core.upstream import TokenSource, Upstream
from autotuned.engines.openai.kinds import ServerKind
from autotuned.engines.openai.listing import read_list, read_properties
from autotuned.engines.openai.server import Server
from autotuned.engines.openai.stops import StopFilter
from autotuned.engines.openai.tokens import TokenRefused, read_token
from tests.engines.openai_case import HandClock, engine_of
from tests.engines.scripted_upstream import error, scripted_upstream

LLAMACPP = {
    "id": "pocket",
    "owned_by": "llamacpp",
    "meta": {"n_ctx": 2048, "n_ctx_train": 8192, "n_params": 5, "size": 7, "n_vocab": 3, "ftype": "Q8_0"},
}
ROUTER = {
    "id": "org/model",
    "owned_by": "org",
    "architecture": {"input_modalities": ["text", "image"]},
    "providers": [{"context_length": 4096}, {"context_length": 131072}, {"provider": "x"}],
}
AUTOTUNE = {
    "id": "pocket",
    "owned_by": "llamacpp",
    "autotune": {"quantization": "Q4_K_M", "train_context_tokens": 8192, "size_bytes": 9},
}


def listed(*entries, header="uvicorn"):
    return read_list(json.dumps({"object": "list", "data": entries}).encode(), header)


@pytest.mark.parametrize(
    ("entries", "header", "kind"),
    [
        ([LLAMACPP], "llama.cpp", ServerKind.LLAMACPP),
        ([LLAMACPP], "nginx", ServerKind.LLAMACPP),
        ([{"id": "m", "owned_by": "vllm"}, {"id": "adapter", "owned_by": "vllm"}], "uvicorn", ServerKind.VLLM),
        ([{"id": "m", "owned_by": "sglang"}], "uvicorn", ServerKind.SGLANG),
        ([{"id": "/models/m"}], "BaseHTTP/0.6 Python/3.11.7", ServerKind.MLX_LM),
        ([], "BaseHTTP/0.6 Python/3.11.7", ServerKind.MLX_LM),
        ([AUTOTUNE], "uvicorn", ServerKind.AUTOTUNE),
        ([ROUTER], "", ServerKind.OTHER),
        ([{"id": "a", "owned_by": "vllm"}, {"id": "b", "owned_by": "openai"}], "", ServerKind.OTHER),
        ([{"id": "m", "owned_by": 5}], "", ServerKind.OTHER),
        ([], "", ServerKind.OTHER),
    ],
)  # fmt: skip
def test_a_program_is_recognized(entries, header, kind):
    assert listed(*entries, header=header)[0] is kind


@pytest.mark.parametrize(
    ("entry", "context_tokens"),
    [
        (LLAMACPP, 2048),
        (ROUTER, 131072),
        (AUTOTUNE, 8192),
        ({"id": "m", "max_model_len": 32768}, 32768),
        ({"id": "m", "context_length": 9}, 9),
        ({"id": "m", "meta": {"n_ctx_train": 8}}, 8),
        ({"id": "m"}, 0),
        ({"id": "m", "max_model_len": None, "meta": None, "providers": 5, "context_length": "8k"}, 0),
        ({"id": "m", "max_model_len": -4, "context_length": True}, 0),
    ],
)
def test_the_context_is_told_in_many_ways(entry, context_tokens):
    ((_, (model,)),) = [listed(entry)]
    facts = model.facts("lab")
    assert facts.train_context_tokens == context_tokens
    assert facts.digest == f"remote:lab:{entry['id']}"
    assert facts.layer_groups == ()


def test_facts_are_what_the_server_tells():
    facts = listed(LLAMACPP)[1][0].facts("lab")
    assert (facts.parameters_count, facts.weights_bytes, facts.vocabulary_size) == (5, 7, 3)
    assert facts.quantization == "Q8_0"
    assert listed(ROUTER)[1][0].facts("hf").modalities == ("text", "image")


def test_a_list_may_be_bare_and_may_have_strange_entries():
    assert [model.id for model in read_list(b'[{"id": "a"}, 5, {"id": ""}, {"name": "x"}]', "")[1]] == ["a"]
    for body in (b"", b"{}", b"5", b'{"data": {}}', b"<html>"):
        with pytest.raises(ValueError, match=r"no JSON|no list"):
            read_list(body, "")


def test_properties_are_read_as_far_as_they_are_there():
    body = {"default_generation_settings": {"n_ctx": 512}, "total_slots": 3, "modalities": {"vision": True}}
    found = read_properties(json.dumps(body).encode())
    assert (found.context_tokens, found.slots_count, found.reads_images) == (512, 3, True)
    assert read_properties(b"[]").context_tokens == 0


# Tokens.


def test_a_token_comes_from_a_variable():
    source = TokenSource("env", "LAB")
    assert read_token(source, {"LAB": " abc\n"}) == "abc"
    assert read_token(None, {}) == ""
    for value in ({}, {"LAB": ""}, {"LAB": " "}):
        with pytest.raises(TokenRefused, match="env:LAB holds no token"):
            read_token(source, value)
    with pytest.raises(TokenRefused, match="characters") as refusal:
        read_token(source, {"LAB": "s3cret\r\nX: y"})
    assert "s3cret" not in str(refusal.value)


def test_a_token_comes_from_a_file_of_its_owner(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("abc\n")
    source = TokenSource("file", str(file))
    for mode in (0o600, 0o400):
        file.chmod(mode)
        assert read_token(source, {}) == "abc"
    for mode in (0o640, 0o604, 0o620, 0o660, 0o644):
        file.chmod(mode)
        with pytest.raises(TokenRefused, match="chmod 600"):
            read_token(source, {})
    with pytest.raises(TokenRefused, match="cannot be read"):
        read_token(TokenSource("file", str(tmp_path / "missing")), {})
    with pytest.raises(TokenRefused, match="is no file"):
        read_token(TokenSource("file", str(tmp_path)), {})
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(TokenRefused, match="is no file"):
        read_token(TokenSource("file", str(tmp_path / "pipe")), {})


async def test_a_token_is_read_again_with_each_look(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("first")
    file.chmod(0o600)
    clock = HandClock()
    async with scripted_upstream() as server:
        engine = engine_of(server.url, words=f"token=file:{file}", clock=clock)
        await engine.refresh()
        file.write_text("second")
        await engine.refresh()
        assert b"Bearer first\r\n" in server.heads[0]
        assert b"Bearer second\r\n" in server.heads[-1]
        file.chmod(0o644)
        looks = server.looks_count
        await engine.refresh()
        status = engine.status()
        assert (status.state, server.looks_count) == (EngineState.UNREACHABLE, looks)
        assert [finding.code for finding in status.findings] == ["token-missing"]
        assert "chmod 600" in status.findings[0].text
        await engine.close()


@pytest.mark.parametrize(
    ("url", "codes"),
    [
        ("http://192.0.2.1:8000", ["token-over-plain-http"]),
        ("http://lab.example", ["token-over-plain-http"]),
        ("https://lab.example", []),
        ("http://127.0.0.1:1", []),
        ("http://[::1]:1", []),
        ("http://localhost:1", []),
    ],
)
def test_a_token_in_plain_text_is_a_finding(url, codes):
    upstream = Upstream(name="lab", url=url, token_source=TokenSource("env", "X"))
    server = Server(upstream, environment={}, clock=HandClock())
    found = [finding.code for finding in server.findings()]
    assert [code for code in found if code == "token-over-plain-http"] == codes


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://x:1", "http://x:1/v1"),
        ("http://x:1/", "http://x:1/v1"),
        ("http://x:1/v1", "http://x:1/v1"),
        ("http://x:1/v1/", "http://x:1/v1"),
        ("http://x:1/lab/v1", "http://x:1/lab/v1"),
        ("http://x:1/api/v4", "http://x:1/api/v4"),
    ],
)
def test_targets_begin_where_the_url_says(url, base):
    server = Server(Upstream(name="lab", url=url), environment={}, clock=HandClock())
    assert server.url == base


def test_nothing_heavy_is_loaded():
    program = (
        "import sys, autotuned.engines.openai.engine;"
        "print(*sorted({'httpx', 'numpy', 'requests', 'openai', 'xllamacpp'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found.strip() == ""


# Stop sequences.


def through(sequences, pieces):
    found, passes = [], StopFilter(sequences)
    for piece in pieces:
        found += passes.feed(TextDelta(0, piece))
        if passes.stopped:
            return "".join(delta.text for delta in found), True
    end = EngineFinished(FinishReason.STOP, Usage(1, 0, 1), 0.0, 0.0)
    *rest, last = passes.feed(end)
    assert last is end
    return "".join(delta.text for delta in [*found, *rest]), False


@given(
    st.text("ab", max_size=20),
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(0, 20), max_size=6),
)
def test_a_stop_sequence_is_found_however_the_text_is_cut(text, sequences, cuts):
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[begin:end] for begin, end in pairwise(bounds)]
    result, stopped = through(tuple(sequences), pieces)
    at = min((text.find(each) for each in sequences if each in text), default=-1)
    assert stopped == (at >= 0)
    if not stopped:
        assert result == text
    else:
        assert not any(each in result for each in sequences)
        assert text.startswith(result)


def test_what_cannot_be_a_stop_sequence_goes_on_at_once():
    passes = StopFilter(("END",))
    token = TokenLogprob("x", b"x", -0.1, ())
    delta = TextDelta(0, "x", (token,))
    assert list(passes.feed(delta)) == [delta]
    assert list(passes.feed(TextDelta(0, "E"))) == []
    assert [each.text for each in passes.feed(TextDelta(0, "x"))] == ["E", "x"]
    assert list(StopFilter(()).feed(delta)) == [delta]


@pytest.mark.parametrize(
    ("words", "status", "advice"),
    [
        ("token=env:LAB", 401, "token that it takes into env:LAB"),
        ("", 403, "Add token=env:VARIABLE"),
        ("", 404, 'most end with "/v1"'),
        ("", 500, "Start it"),
    ],
)
async def test_what_to_do_depends_on_what_it_answers(words, status, advice):
    async with scripted_upstream(list_answer=[error(status, {"error": "no"})]) as server:
        engine = engine_of(server.url, words=words, environment={"LAB": "s3cret"}, clock=HandClock())
        await engine.refresh()
        (finding,) = engine.status().findings
        assert advice in finding.advice
        await engine.close()


async def test_a_missing_variable_is_one_of_the_daemons_environment():
    engine = engine_of("http://127.0.0.1:1", words="token=env:LAB", environment={}, clock=HandClock())
    await engine.refresh()
    (finding,) = engine.status().findings
    assert finding.advice.startswith("Set LAB where the daemon is started")
    await engine.close()
