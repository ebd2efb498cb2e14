"""What servers could say and should not: bytes that are no text, numbers that nothing has, endless depth."""

from __future__ import annotations

import json

import msgspec
import pytest

from autotuned.core.errors import ModelInvalid
from autotuned.core.generation import EngineFinished, FinishReason, Usage
from autotuned.core.settings import OllamaSettings
from autotuned.engines.chat_events import ChatReader, UnreadableStream, finished_of, problem_in
from autotuned.engines.llamacpp.events import PromptReader
from autotuned.engines.lmstudio.events import TextReader
from autotuned.engines.lmstudio.listing import read_v0, read_v1
from autotuned.engines.ollama.client import Running, RunningList, Show, Tags, Tensor, error_text
from autotuned.engines.ollama.events import AnswerReader
from autotuned.engines.ollama.facts import facts_of_answer
from autotuned.engines.ollama.shape import applied_shape, footprint_of
from autotuned.engines.openai.completions import CompletionReader
from tests.engines.shapes import SHAPE
from tests.examples import POCKET

DEEP = b"[" * 100_000 + b"]" * 100_000
NO_TEXT = b'"\xff\xfe"'
HUGE = b"1" + b"0" * 40
LARGEST = 1 << 53

READERS = [
    lambda: ChatReader(None),
    lambda: AnswerReader(None),
    TextReader,
    lambda: PromptReader(None),
    lambda: CompletionReader(None),
]


@pytest.mark.parametrize(
    "reader", READERS, ids=["chat", "ollama", "lmstudio text", "llamacpp prompt", "completion"]
)
@pytest.mark.parametrize(
    "data",
    [
        b'{"content": %s, "response": %s, "choices": [{"text": %s, "delta": {"content": %s}}]}'
        % (NO_TEXT, NO_TEXT, NO_TEXT, NO_TEXT),
        b'{"other": %s}' % DEEP,
        b"\xff",
        b"",
    ],
    ids=["no text", "deep", "no json", "nothing"],
)
def test_a_chunk_that_is_none_cannot_be_read(reader, data):
    with pytest.raises(UnreadableStream):
        reader().feed(data)


def test_arguments_that_are_no_text_cannot_be_read():
    call = b'{"message": {"tool_calls": [{"function": {"name": "f", "arguments": {"a": %s}}}]}}'
    with pytest.raises(UnreadableStream):
        AnswerReader(None).feed(call % NO_TEXT)


def test_arguments_with_a_number_of_any_length_are_passed_on():
    call = b'{"choices": [{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": {"a": %s}}}]}}]}'
    (event,) = ChatReader(None).feed(call % HUGE)
    assert HUGE.decode() in event.arguments_json_fragment


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": %s}}' % NO_TEXT,
        b'{"error": {"message": %s}}' % HUGE,
        b'{"error": {"message": "x", "code": "%s"}}' % (b"9" * 5000),
        b'{"error": %s}' % DEEP,
        b"\xff",
    ],
    ids=["no text", "huge", "long code", "deep", "no json"],
)
def test_an_error_is_understood_whatever_it_is(body):
    problem = problem_in(body, 500)
    assert (problem.code, problem.message[:0]) == (500, "")
    assert isinstance(error_text(body), str)


def test_counts_and_times_are_such_that_can_be_told():
    line = {"done": True, "prompt_eval_count": -1, "eval_count": 10**30, "eval_duration": 10**30}
    (event,) = AnswerReader(None).feed(written(line))
    assert event.usage == Usage(0, 0, LARGEST)
    (event,) = AnswerReader(None).feed(
        written({"done": True, "prompt_eval_count": 5, "prompt_eval_cached_count": 9, "load_duration": -1})
    )
    assert event.usage == Usage(5, 5, 0)
    usage = {"prompt_tokens": -7, "completion_tokens": 10**30, "prompt_tokens_details": {"cached_tokens": 4}}
    timings = {"prompt_ms": 1e300, "predicted_ms": -1.0}
    (event,) = ChatReader(None).feed(written({"choices": [], "usage": usage, "timings": timings}))
    assert event.usage == Usage(0, 0, LARGEST)
    assert 0 <= event.decode_seconds <= event.prefill_seconds < 1e9
    assert finished_of(FinishReason.STOP, Usage(1, 1, 1), None) == EngineFinished(
        FinishReason.STOP, Usage(1, 1, 1), 0.0, 0.0
    )


def written(value):
    """JSON, with numbers of any size."""
    return json.dumps(value).encode()


def test_a_list_of_lmstudio_has_no_numbers_that_nothing_has():
    model = b'{"key": "a", "max_context_length": 1e300, "size_bytes": -1e300, "loaded_instances": '
    model += b'[{"id": "i", "config": {"context_length": -5, "parallel": 1e300, "eval_batch_size": -1}}]}'
    listing = read_v1(b'{"models": [%s, {"key": %s}]}' % (model, NO_TEXT))
    (found,) = listing.models.values()
    assert (found.context_tokens, found.size_bytes) == (0, -1)
    (instance,) = found.instances
    assert (instance.context_tokens, instance.slots_count, instance.batch_tokens) == (0, 1024, 0)
    assert read_v1(b'{"models": [{"key": "a", "capabilities": {"reasoning": %s}}]}' % DEEP) is None
    entry = b'{"id": "a", "max_context_length": 1e300, "state": "loaded", "loaded_context_length": -2}'
    (old,) = read_v0(b'{"data": [%s, {"id": %s}]}' % (entry, NO_TEXT)).models.values()
    assert (old.context_tokens, old.instances[0].context_tokens) == (0, 0)


def test_a_list_of_ollama_has_no_numbers_that_nothing_has_and_loses_no_sound_model():
    tags = msgspec.json.decode(
        b'{"models": [{"name": "a", "size": %s}, {"name": null}, {"name": "b"}]}' % HUGE, type=Tags
    )
    assert [(tag.name, tag.size) for tag in tags.sound()] == [("a", LARGEST), ("b", 0)]
    running = msgspec.json.decode(
        b'{"models": [{"name": "a", "size": -1, "size_vram": %s, "context_length": -9}]}' % HUGE,
        type=RunningList,
    ).models[0]
    assert (running.size, running.size_vram, running.context_length) == (0, LARGEST, 0)
    shape = applied_shape(SHAPE, running, OllamaSettings())
    assert shape.context_tokens == SHAPE.context_tokens
    assert "context_tokens" in shape.assumed
    assert footprint_of(running, POCKET, shape).compute_bytes == 0
    assert applied_shape(SHAPE, Running(name="a", context_length=1), OllamaSettings()).context_tokens == 1


@pytest.mark.parametrize("dimensions", [[-1, 5], [1 << 40, 1 << 40]])
def test_a_tensor_that_nothing_has_is_no_model(dimensions):
    show = Show(tensors=[Tensor(name="t", type="F32", shape=dimensions)])
    with pytest.raises(ModelInvalid, match="which no model has"):
        facts_of_answer("x", "d", show)
