"""Which replies go on, and with what prompt."""

import pytest

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    Message,
    RawPrompt,
    ReasoningEffort,
    ReasoningPart,
    Role,
    TextPart,
)
from autotuned.core.errors import Unsupported
from autotuned.engines.continuation import with_reply_so_far
from tests.suites.engine_case import ask, assistant, user


def continued(request, *, model_thinks=False):
    return with_reply_so_far(request, model_thinks=model_thinks)


def test_a_request_without_a_reply_stays_as_it_is():
    request = ask("Hello!")
    assert continued(request, model_thinks=True) is request


def test_the_reply_becomes_the_end_of_the_prompt():
    request = continued(ask("Hello!", reply_so_far="Hi, "))
    assert request.input == ChatInput((user("Hello!"), assistant("Hi, ")))
    assert request.reply_so_far == ""


def test_the_reply_follows_what_the_client_had_begun():
    request = continued(ask("Hello!", assistant("Hi"), reply_so_far=", you"))
    assert request.input == ChatInput((user("Hello!"), assistant("Hi, you")))


def test_a_raw_prompt_gets_longer():
    request = GenerationRequest(model="m", input=RawPrompt("Once"), reply_so_far=" upon")
    assert continued(request).input == RawPrompt("Once upon")


def test_a_model_that_thinks_goes_on_only_when_it_was_told_not_to():
    with pytest.raises(Unsupported, match="thinks first"):
        continued(ask("Hello!", reply_so_far="Hi"), model_thinks=True)
    quiet = ask("Hello!", reply_so_far="Hi", reasoning_effort=ReasoningEffort.NONE)
    assert continued(quiet, model_thinks=True).input == ChatInput((user("Hello!"), assistant("Hi")))
    raw = GenerationRequest(model="m", input=RawPrompt("Once"), reply_so_far=" upon")
    assert continued(raw, model_thinks=True).input == RawPrompt("Once upon")


@pytest.mark.parametrize(
    "parts",
    [(TextPart("a"), TextPart("b")), (ReasoningPart("hm"), TextPart("a")), ()],
    ids=["two texts", "a thought", "nothing"],
)
def test_a_begun_answer_of_several_parts_is_refused(parts):
    with pytest.raises(Unsupported, match="several parts"):
        continued(ask("Hello!", Message(Role.ASSISTANT, parts), reply_so_far="Hi"))


@pytest.mark.parametrize(
    ("sequence", "refused"), [("i!", True), ("Hi", False), ("!", False), ("Hi, you", True)]
)
def test_a_reply_that_ends_within_a_stop_sequence_is_refused(sequence, refused):
    request = ask("Hello!", reply_so_far="Hi", stop_sequences=(sequence,))
    if refused:
        with pytest.raises(Unsupported, match="stop sequence"):
            continued(request)
    else:
        continued(request)


def test_filling_in_is_refused():
    request = GenerationRequest(model="m", input=RawPrompt("def f(", "return 1"), reply_so_far="x")
    with pytest.raises(Unsupported, match="suffix"):
        continued(request)
