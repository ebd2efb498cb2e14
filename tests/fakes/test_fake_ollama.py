"""The double of Ollama is as strict as the original: models, shapes, answers, refusals."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.engines.processes import descendants, until
from tests.fakes.ollama.asking import FRANCE, chat
from tests.fakes.ollama.model_store import POCKET, add_model
from tests.fakes.ollama.running import running_ollama

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
async def ollama(tmp_path_factory):
    """One double for all tests that do not change how it runs."""
    before = descendants()
    folder = tmp_path_factory.mktemp("ollama")
    add_model(folder / "models", "pocket:latest")
    add_model(folder / "models", "pocket:long", parameters={"num_ctx": 6144, "stop": ["Paris"]})
    async with running_ollama(folder, models=folder / "models") as running:
        yield running
    await until(lambda: descendants() <= before, "the double and its runners are gone")


async def post(ollama, path, **body):
    return await ollama.client.post(path, json=body)


async def lines(ollama, path, **body):
    async with ollama.client.stream("POST", path, json={"model": "pocket"} | body) as answer:
        return answer, [json.loads(line) async for line in answer.aiter_lines()]


async def test_it_presents_itself(ollama):
    assert (await ollama.client.get("/")).text == "Ollama is running"
    assert (await ollama.client.head("/")).status_code == 200
    assert (await ollama.client.get("/api/version")).json() == {"version": "0.33.3"}
    assert (await ollama.client.get("/api/nothing")).text == "404 page not found"
    assert (await ollama.client.get("/api/chat")).text == "405 method not allowed"
    assert (await ollama.client.get("/", headers={"host": "evil.example"})).status_code == 403


async def test_tags_are_the_manifests(ollama):
    models = (await ollama.client.get("/api/tags")).json()["models"]
    assert {model["name"] for model in models} == {"pocket:latest", "pocket:long"}
    latest = next(model for model in models if model["model"] == "pocket:latest")
    manifest = ollama.models / "manifests" / "registry.ollama.ai" / "library" / "pocket" / "latest"
    assert latest["digest"] == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert latest["details"]["quantization_level"] == "Q8_0"
    assert latest["details"]["context_length"] == 8192
    assert latest["capabilities"] == ["tools", "completion"]
    assert latest["size"] > POCKET.stat().st_size


async def test_blobs_are_shared_and_named_by_content(ollama):
    digest = hashlib.sha256(POCKET.read_bytes()).hexdigest()
    blobs = [
        path for path in (ollama.models / "blobs").iterdir() if path.stat().st_size == POCKET.stat().st_size
    ]
    assert [path.name for path in blobs] == [f"sha256-{digest}"]


async def test_show_hides_arrays_unless_verbose(ollama):
    short = (await post(ollama, "/api/show", model="pocket")).json()
    full = (await post(ollama, "/api/show", model="pocket", verbose=True)).json()
    assert short["model_info"]["tokenizer.ggml.tokens"] is None
    assert len(full["model_info"]["tokenizer.ggml.tokens"]) == 2048
    assert short["model_info"]["llama.attention.head_count_kv"] == 2
    assert "tokenizer.chat_template" not in short["model_info"]
    blob = next(line for line in short["modelfile"].splitlines() if line.startswith("FROM "))
    assert blob.removeprefix("FROM ").startswith(str(ollama.models / "blobs" / "sha256-"))
    assert short["template"].startswith("{%- if tools %}")
    long = (await post(ollama, "/api/show", model="pocket:long")).json()
    assert long["parameters"].splitlines() == [f"{'num_ctx':<30} 6144", f'{"stop":<30} "Paris"']


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/api/chat", {"model": "nope", "messages": FRANCE}, 404, "model 'nope' not found"),
        ("/api/generate", {"model": "nope", "prompt": "x"}, 404, "model 'nope' not found"),
        ("/api/generate", {}, 404, "model '' not found"),
        ("/api/show", {"model": "nope"}, 404, "model 'nope:latest' not found"),
        ("/api/embed", {"model": "nope", "input": "x"}, 404, 'model "nope" not found, try pulling it first'),
        ("/api/chat", {"messages": FRANCE}, 400, "model is required"),
        ("/api/chat", {"model": "no/../pe:%", "messages": FRANCE}, 400, "invalid model name"),
        ("/api/chat", {"model": "pocket", "keep_alive": "-1"}, 400, 'time: missing unit in duration "-1"'),
        ("/api/chat", {"model": "pocket", "keep_alive": "300"}, 400, 'time: missing unit in duration "300"'),
        ("/api/chat", {"model": "pocket", "keep_alive": "soon"}, 400, 'time: invalid duration "soon"'),
        (
            "/api/chat",
            {"model": "pocket", "messages": FRANCE, "options": {"num_ctx": "4096"}},
            500,
            'option "num_ctx" must be of type integer',
        ),
        (
            "/api/chat",
            {"model": "pocket", "messages": FRANCE, "options": {"stop": "x"}},
            500,
            'option "stop" must be of type array',
        ),
        (
            "/api/chat",
            {"model": "pocket", "messages": FRANCE, "options": 1},
            400,
            "json: cannot unmarshal number into Go struct field ChatRequest.options of type map[string]interface {}",
        ),
        (
            "/api/chat",
            {"model": "pocket", "messages": [{"role": "user", "content": [{"type": "text"}]}]},
            400,
            "json: cannot unmarshal array into Go struct field Alias.content of type string",
        ),
        (
            "/api/chat",
            {
                "model": "pocket",
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}]}
                ],
            },
            400,
            "Value looks like object, but can't find closing '}' symbol",
        ),
        (
            "/api/chat",
            {"model": "pocket", "messages": FRANCE, "think": True},
            400,
            '"pocket" does not support thinking',
        ),
        ("/api/chat", {"model": "pocket", "top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
        (
            "/api/chat",
            {"model": "pocket", "messages": FRANCE, "format": "yaml"},
            500,
            'invalid format: "\\"yaml\\""; expected "json" or a valid JSON Schema object',
        ),
        (
            "/api/embed",
            {"model": "pocket", "input": "x"},
            501,
            "This server does not support embeddings. Start it with `--embeddings`",
        ),
        (
            "/api/generate",
            {"model": "pocket", "prompt": "x", "raw": True, "system": "y"},
            400,
            "raw mode does not support template, system, or context",
        ),
    ],
)
async def test_refusals_have_the_words_of_the_original(ollama, path, body, status, error):
    answer = await ollama.client.post(path, json=body)
    assert (answer.json(), answer.status_code) == ({"error": error}, status)


async def test_a_body_must_be_there(ollama):
    answer = await ollama.client.post("/api/chat", content=b"")
    assert (answer.status_code, answer.json()["error"]) == (400, "missing request body")
    assert (await ollama.client.post("/api/chat", content=b"{")).json()["error"] == "unexpected EOF"


async def test_an_image_is_refused_by_a_model_that_does_not_see(ollama):
    answer = await chat(ollama, [{"role": "user", "content": "What is it?", "images": ["aGVsbG8="]}])
    assert answer.status_code == 500
    assert "image input is not supported" in answer.json()["error"]
    answer = await chat(ollama, [{"role": "user", "content": "What is it?", "images": ["a*"]}])
    assert (answer.status_code, answer.json()["error"]) == (400, "illegal base64 data at input byte 1")


async def test_chat_streams_lines(ollama):
    answer, found = await lines(ollama, "/api/chat", messages=FRANCE, options={"temperature": 0})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert "".join(line["message"]["content"] for line in found) == "The capital of France is Paris."
    assert [line["done"] for line in found] == [False] * 7 + [True]
    last = found[-1]
    assert last["done_reason"] == "stop"
    assert last["prompt_eval_count"] == 15
    assert last["eval_count"] == 8
    assert last["total_duration"] > last["load_duration"] > 0
    assert last["eval_duration"] > 0
    assert last["prompt_eval_duration"] > 0


async def test_what_was_cached_counts_as_prompt(ollama):
    first = (await chat(ollama)).json()
    again = (await chat(ollama)).json()
    assert again["prompt_eval_count"] == first["prompt_eval_count"] == 15
    assert again["prompt_eval_cached_count"] == 14


async def test_a_limit_ends_with_length(ollama):
    answer = (await chat(ollama, options={"num_predict": 3})).json()
    assert (answer["message"]["content"], answer["done_reason"]) == ("The capital of", "length")


async def test_tool_calls_have_arguments_as_an_object(ollama):
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    message = (await chat(ollama, asked, tools=[WEATHER])).json()["message"]
    (call,) = message["tool_calls"]
    assert call["function"] == {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}}
    result = {"role": "tool", "tool_name": "get_weather", "content": "sunny"}
    assert (await chat(ollama, [*asked, message, result], tools=[WEATHER])).json()["message"]["content"]


async def test_of_a_tool_only_what_the_types_hold_is_kept(ollama):
    strict = json.loads(json.dumps(WEATHER))
    strict["function"]["strict"] = True
    strict["function"]["parameters"]["additionalProperties"] = False
    strict["function"]["parameters"]["properties"]["city"] |= {"minLength": 1, "type": ["string"]}
    plain, kept = [
        (await chat(ollama, tools=[tool], _debug_render_only=True)).json()["_debug_info"]
        for tool in (WEATHER, strict)
    ]
    assert kept == plain
    strict["function"]["parameters"]["type"] = ["object"]
    answer = await chat(ollama, tools=[strict])
    assert answer.json()["error"] == (
        "json: cannot unmarshal array into Go struct field ToolFunctionParameters.type of type string"
    )


async def test_formats_constrain(ollama):
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = (await chat(ollama, format=schema, options={"num_predict": 60})).json()
    assert json.loads(answer["message"]["content"]) == {"city": "Paris"}


async def test_log_probabilities(ollama):
    answer = (await chat(ollama, logprobs=True, top_logprobs=2, options={"num_predict": 1})).json()
    (token,) = answer["logprobs"]
    assert (token["token"], token["bytes"]) == ("The", list(b"The"))
    assert len(token["top_logprobs"]) == 2
    plain = (await chat(ollama, logprobs=True, options={"num_predict": 1})).json()
    assert "top_logprobs" not in plain["logprobs"][0]


async def test_unknown_options_are_warned_of_and_ignored(ollama):
    before = (await ollama.page())["warnings"]
    assert (await chat(ollama, options={"flash_attn": True, "num_predict": 1})).is_success
    assert (await ollama.page())["warnings"][len(before) :] == ["invalid option provided option=flash_attn"]


async def test_generate_renders_unless_raw(ollama):
    body = {"model": "pocket", "prompt": FRANCE[0]["content"], "stream": False, "options": {"temperature": 0}}
    rendered = (await post(ollama, "/api/generate", **body)).json()
    assert rendered["response"] == "The capital of France is Paris."
    assert len(rendered["context"]) == 15 + 7
    raw = (await post(ollama, "/api/generate", **body, raw=True)).json()
    assert raw["prompt_eval_count"] < rendered["prompt_eval_count"]
    assert "context" not in raw


async def test_a_prompt_that_is_too_long(ollama):
    small = {"num_ctx": 512, "num_predict": 1}
    turns = [{"role": role, "content": "word " * 90} for role in ("user", "assistant") * 4]
    system = {"role": "system", "content": "You are brief."}
    refused = await chat(ollama, [*turns, *FRANCE], truncate=False, options=small)
    assert refused.status_code == 400
    assert json.loads(refused.json()["error"])["error"]["type"] == "exceed_context_size_error"
    dropped = (await chat(ollama, [system, *turns, *FRANCE], options=small)).json()
    assert 400 < dropped["prompt_eval_count"] <= 512
    kept = (await chat(ollama, [system, *turns[-5:], *FRANCE], options=small)).json()
    assert kept["prompt_eval_count"] == dropped["prompt_eval_count"]
    alone = await chat(ollama, [{"role": "user", "content": "word " * 600}], options=small)
    assert alone.status_code == 400
    cut = await post(
        ollama, "/api/generate", model="pocket", prompt="word " * 600, raw=True, stream=False, options=small
    )
    assert cut.json()["prompt_eval_count"] == 512 - (512 - 4) // 2


async def test_pull_has_no_registry(ollama):
    _, found = await lines(ollama, "/api/pull", model="nope")
    assert found == [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}]
    _, found = await lines(ollama, "/api/pull", model="pocket")
    assert [line["status"] for line in found][-1] == "success"
    assert (await post(ollama, "/api/pull", model="nope", stream=False)).status_code == 500


async def test_delete_keeps_what_others_need(ollama):
    add_model(ollama.models, "pocket:brief", parameters={"num_ctx": 777})
    blobs = len(list((ollama.models / "blobs").iterdir()))
    answer = await ollama.client.request("DELETE", "/api/delete", json={"model": "pocket:brief"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert len(list((ollama.models / "blobs").iterdir())) == blobs - 2  # its parameters, its configuration
    again = await ollama.client.request("DELETE", "/api/delete", json={"model": "pocket:brief"})
    assert (again.status_code, again.json()) == (404, {"error": "model 'pocket:brief' not found"})
