"""The official openai package, unchanged, against the HTTP server, the daemon and the pocket model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Literal

import autotune
import httpx
import openai
import pydantic
import pytest

PATIENCE_SECONDS = 30.0
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."
ENDLESS = [{"role": "user", "content": "Tell me a story."}]
NO_END = {str(token): -100 for token in range(8)}
"""Forbids the special tokens, so that only the end of the context ends an answer."""


def function(name: str, description: str, **properties: str) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in properties.items()},
        "required": list(properties),
    }
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


TOOLS = [
    function("get_weather", "Get the weather in a city", city="string"),
    function("add", "Add two numbers", a="integer", b="integer"),
]


class Shim:
    """A running HTTP server."""

    def __init__(self, daemon: Any) -> None:
        arguments = [sys.executable, "-m", "autotune_shim", "--port", "0", "--address", daemon.address]
        self.process = subprocess.Popen(arguments, env=daemon.environment, stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        found = re.search(r"http://\S+/v1", line)
        assert found, line
        self.url = found[0]

    def stop(self) -> int:
        """Asks it to stop; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE_SECONDS)
        self.process.stderr.close()
        return status


@pytest.fixture(scope="module")
def shim(daemon) -> Iterator[Shim]:
    running = Shim(daemon)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def ai(shim) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=shim.url, api_key="unused", max_retries=0, timeout=PATIENCE_SECONDS
    ) as client:
        yield client


@pytest.fixture(scope="module")
def http(shim) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shim.url, timeout=PATIENCE_SECONDS) as client:
        yield client


def ask(ai: openai.OpenAI, messages: list[Any], **options: Any) -> Any:
    return ai.chat.completions.create(model="pocket", messages=messages, temperature=0, **options)


def text_of(stream: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def wait_until(daemon: Any, active: int, queued: int = 0) -> None:
    """Waits until so many requests run and wait."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    with autotune.Client(daemon.address) as client:
        while (state := client.snapshot()) and (active, queued) != (
            state.active_requests_count,
            state.queued_requests_count,
        ):
            assert time.monotonic() < deadline, f"{state.active_requests_count} requests still run"


def cancelled_count(daemon: Any) -> int:
    """Requests that the daemon recorded as given up."""
    with contextlib.closing(sqlite3.connect(daemon.home / "data" / "autotune.db")) as database:
        [count] = database.execute(
            "SELECT count(*) FROM requests WHERE finish_reason = 'cancelled'"
        ).fetchone()
    return count


def wait_until_cancelled(daemon: Any, before: int) -> None:
    """Waits for the record of one more request that was given up, rather than run to its end."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while cancelled_count(daemon) == before:
        assert time.monotonic() < deadline, "no request was cancelled"
    assert cancelled_count(daemon) == before + 1


def test_a_question_is_answered(ai):
    answer = ask(ai, QUESTION)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.model == "pocket"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    numbers = answer.model_extra["autotune"]
    assert numbers["ttft_ms"] > 0
    assert numbers["context_tokens"] >= answer.usage.total_tokens
    assert numbers["plan"]["reasons"]


def test_the_default_model_answers_when_none_is_named(http):
    answer = http.post("chat/completions", json={"messages": QUESTION, "temperature": 0}).json()
    assert answer["choices"][0]["message"]["content"] == ANSWER
    assert answer["model"] == "pocket"


def test_a_streamed_answer_is_the_same_answer(ai):
    chunks = list(ask(ai, QUESTION, stream=True, stream_options={"include_usage": True}))
    assert text_of(chunks) == ANSWER
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    usage = chunks[-1].usage
    whole = ask(ai, QUESTION).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.prompt_tokens, whole.completion_tokens)
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


async def test_the_asynchronous_client(shim):
    async with openai.AsyncOpenAI(base_url=shim.url, api_key="unused", max_retries=0) as ai:
        stream = await ai.chat.completions.create(
            model="pocket", messages=QUESTION, temperature=0, stream=True
        )
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == ANSWER


def test_the_second_identical_request_finds_its_prompt_cached(ai):
    messages = [{"role": "system", "content": "Be brief and precise."}, *QUESTION]
    ask(ai, messages)
    usage = ask(ai, messages).usage
    assert 0 < usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens


def test_a_tool_round_trip(ai):
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = ask(ai, messages, tools=TOOLS)
    assert first.choices[0].finish_reason == "tool_calls"
    [call] = first.choices[0].message.tool_calls
    assert call.id
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    result = json.dumps({"sky": "sunny", "celsius": 21})
    messages += [
        first.choices[0].message.model_dump(),
        {"role": "tool", "tool_call_id": call.id, "content": result},
    ]
    second = ask(ai, messages, tools=TOOLS)
    assert second.choices[0].message.content == "It is sunny and 21 degrees in Paris."
    assert second.choices[0].finish_reason == "stop"


def test_a_streamed_tool_call_comes_in_fragments(ai):
    messages = [{"role": "user", "content": "What is 12 plus 30?"}]
    chunks = list(ask(ai, messages, tools=TOOLS, stream=True))
    fragments = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert {fragment.index for fragment in fragments} == {0}
    assert fragments[0].id
    assert [fragment.function.name for fragment in fragments if fragment.function.name] == ["add"]
    arguments = "".join(fragment.function.arguments or "" for fragment in fragments)
    assert json.loads(arguments) == {"a": 12, "b": 30}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_no_tool_is_called_when_none_may_be(ai):
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    choice = ask(ai, messages, tools=TOOLS, tool_choice="none").choices[0]
    assert not choice.message.tool_calls
    assert choice.finish_reason in {"stop", "length"}


@pytest.mark.parametrize(
    "choice",
    ["required", {"type": "function", "function": {"name": "get_weather"}}],
    ids=["required", "named"],
)
def test_a_tool_that_must_be_called_is_called(ai, choice):
    messages = [{"role": "user", "content": "What is the weather in Oslo?"}]
    message = ask(ai, messages, tools=TOOLS, tool_choice=choice, max_tokens=100).choices[0].message
    assert [call.function.name for call in message.tool_calls] == ["get_weather"]


class Verdict(pydantic.BaseModel):
    """A form with few possible contents."""

    verdict: Literal["yes", "no", "maybe"]
    certain: bool


def test_structured_output(ai):
    answer = ai.chat.completions.parse(
        model="pocket", messages=QUESTION, temperature=0, response_format=Verdict, max_tokens=400
    )
    assert isinstance(answer.choices[0].message.parsed, Verdict)


def test_any_json_object(ai):
    answer = ask(ai, QUESTION, response_format={"type": "json_object"}, max_tokens=200)
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    else:
        assert answer.choices[0].message.content.lstrip().startswith("{")


def test_logprobs(ai):
    choice = ask(ai, QUESTION, logprobs=True, top_logprobs=3).choices[0]
    tokens = choice.logprobs.content
    assert "".join(token.token for token in tokens).removesuffix("<|im_end|>") == ANSWER
    assert bytes(byte for token in tokens for byte in token.bytes).decode().startswith(ANSWER)
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in tokens)
    assert all(token.top_logprobs[0].token == token.token for token in tokens)


def test_streamed_logprobs(ai):
    chunks = list(ask(ai, QUESTION, logprobs=True, stream=True))
    tokens = [
        token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content
    ]
    assert "".join(token.token for token in tokens).removesuffix("<|im_end|>") == ANSWER
    assert all(token.top_logprobs == [] for token in tokens)


def test_a_stop_sequence_ends_the_answer(ai):
    messages = [{"role": "user", "content": "Count from 1 to 9."}]
    assert ask(ai, messages).choices[0].message.content == "1 2 3 4 5 6 7 8 9"
    choice = ask(ai, messages, stop=[" 5"]).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("1 2 3 4", "stop")


def test_the_reply_can_be_limited(ai):
    answer = ask(ai, ENDLESS, max_completion_tokens=5)
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 5)


def test_equal_seeds_give_equal_answers(ai):
    options = {"model": "pocket", "messages": ENDLESS, "temperature": 1.0, "max_tokens": 40, "seed": 7}
    first, second = (ai.chat.completions.create(**options) for _ in range(2))
    assert first.choices[0].message.content == second.choices[0].message.content
    assert first.system_fingerprint == second.system_fingerprint


def test_an_earlier_turn_is_remembered(ai):
    messages = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Got it."},
        {"role": "user", "content": [{"type": "text", "text": "What is my name?"}]},
    ]
    assert ask(ai, messages).choices[0].message.content == "Your name is Ada."


def test_a_completion_meets_no_template(ai):
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    answer = ai.completions.create(model="pocket", prompt=prompt, temperature=0, max_tokens=30)
    assert answer.choices[0].text == ANSWER
    chunks = list(
        ai.completions.create(model="pocket", prompt=prompt, temperature=0, max_tokens=30, stream=True)
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == ANSWER
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_models(ai):
    assert "pocket" in [model.id for model in ai.models.list()]
    assert ai.models.retrieve("pocket").owned_by == "llamacpp"
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve("pockett")


def test_health(http):
    state = http.get("../health").json()
    assert state["status"] == "ok"
    assert state["version"] == autotune.__version__
    assert state["memory"]["total_bytes"] > state["memory"]["available_bytes"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_model_name_gets_a_suggestion(ai, stream):
    with pytest.raises(openai.NotFoundError) as caught:
        ai.chat.completions.create(model="pockett", messages=QUESTION, stream=stream)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert 'did you mean "pocket"?' in caught.value.message


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_beyond_the_context_is_refused(ai, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(ai, [{"role": "user", "content": "word " * 60_000}], stream=stream)
    assert caught.value.code == "context_length_exceeded"


def test_a_prompt_of_twenty_megabytes_is_refused(ai):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(ai, [{"role": "user", "content": "a" * 20_000_000}])
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"n": 2}, "n"),
        ({"stop": [""]}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 3}}},
            "response_format",
        ),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools"),
        ({"store": True}, "store"),
        ({"extra_body": {"conversation_id": "x"}}, "conversation_id"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(ai, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ai.chat.completions.create(**{"model": "pocket", "messages": QUESTION, **options})
    assert caught.value.param.startswith(param)


def test_an_image_is_refused(ai):
    url = "data:image/png;base64,iVBORw0KGgo="
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    with pytest.raises(openai.BadRequestError) as caught:
        ask(ai, messages)
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b'{"messages": []}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "Hi"}], "temperature": NaN}',
        b"[" * 200_000,
    ],
)
def test_bad_bodies_are_refused_and_the_next_request_is_served(http, ai, body):
    refused = http.post("chat/completions", content=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert ask(ai, QUESTION).choices[0].message.content == ANSWER


def test_a_client_that_goes_in_mid_stream_stops_the_generation(ai, daemon):
    wait_until(daemon, active=0)
    before = cancelled_count(daemon)
    with ask(ai, ENDLESS, logit_bias=NO_END, stream=True) as stream:
        next(iter(stream))
    wait_until(daemon, active=0)
    wait_until_cancelled(daemon, before)


def test_a_client_that_gives_up_on_a_whole_answer_stops_the_generation(ai, daemon):
    ask(ai, QUESTION)
    wait_until(daemon, active=0)
    before = cancelled_count(daemon)
    with pytest.raises(openai.APITimeoutError):
        ask(ai, ENDLESS, logit_bias=NO_END, timeout=0.1)
    wait_until(daemon, active=0)
    wait_until_cancelled(daemon, before)
    assert ask(ai, QUESTION).choices[0].message.content == ANSWER


async def test_a_full_queue_is_told_and_who_leaves_it_makes_room(shim, daemon):
    async with openai.AsyncOpenAI(base_url=shim.url, api_key="unused", max_retries=0) as ai:

        async def endless(stream: bool) -> None:
            options = {"logit_bias": NO_END, "stream": stream, "model": "pocket", "messages": ENDLESS}
            answer = await ai.chat.completions.create(**options)
            if stream:  # read, so that who is cancelled hangs up
                async with answer:
                    async for _ in answer:
                        pass

        waiting = [asyncio.create_task(endless(number % 2 == 0)) for number in range(9)]
        await asyncio.to_thread(wait_until, daemon, 1, 8)
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as caught:
                await endless(stream)
            assert caught.value.code == "queue_full"
            assert int(caught.value.response.headers["retry-after"]) >= 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.to_thread(wait_until, daemon, 0)


async def test_twenty_at_once_are_answered_or_told_to_come_back(shim):
    async with openai.AsyncOpenAI(base_url=shim.url, api_key="unused", max_retries=0) as ai:
        questions = [
            ai.chat.completions.create(
                model="pocket", messages=QUESTION, temperature=0, stream=number % 2 == 0
            )
            for number in range(20)
        ]
        outcomes = await asyncio.gather(*questions, return_exceptions=True)
        texts, refusals = [], []
        for outcome in outcomes:
            if isinstance(outcome, openai.RateLimitError):
                refusals.append(outcome)
            elif isinstance(outcome, openai.AsyncStream):
                texts.append("".join([chunk.choices[0].delta.content or "" async for chunk in outcome]))
            else:
                texts.append(outcome.choices[0].message.content)
    assert set(texts) == {ANSWER}
    assert len(texts) >= 9
    assert all(refusal.code == "queue_full" for refusal in refusals)
    assert all(int(refusal.response.headers["retry-after"]) >= 1 for refusal in refusals)


def test_the_server_ends_when_asked_and_leaves_the_daemon(daemon):
    running = Shim(daemon)
    assert httpx.get(running.url.removesuffix("/v1") + "/health").status_code == 200
    assert running.stop() == -signal.SIGTERM
    with autotune.Client(daemon.address) as client:
        assert client.info().version
