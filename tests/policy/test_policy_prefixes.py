"""The names of KV prefixes: what changes them, what does not, and which saved one is found."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    ImagePart,
    Message,
    RawPrompt,
    ReasoningEffort,
    ReasoningPart,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolChoiceMode,
    ToolResultPart,
)
from autotuned.core.plan import KvCacheType
from autotuned.core.prefix import SavedPrefix
from autotuned.policy.prefixes import (
    best_match,
    boundary_tokens,
    chain,
    conversation_name,
    namespace,
    shared_count,
    superseded,
)
from tests.engines.shapes import SHAPE
from tests.examples import POCKET

SYSTEM = Message(Role.SYSTEM, (TextPart("You are terse."),))
QUESTION = Message(Role.USER, (TextPart("What is a slot?"),))
ANSWER = Message(Role.ASSISTANT, (TextPart("A place."),))
NEXT = Message(Role.USER, (TextPart("And a cache?"),))
TOOL = Tool("look", "Looks.", '{"type":"object"}')
ASKED = GenerationRequest(model="", input=ChatInput((SYSTEM, QUESTION)))

texts = st.text(max_size=20)
parts = st.one_of(
    st.builds(TextPart, texts),
    st.builds(ReasoningPart, texts),
    st.builds(ToolCallPart, texts, texts, texts),
    st.builds(ToolResultPart, texts, texts, texts),
    st.builds(ImagePart, st.binary(max_size=8), texts),
)
messages = st.builds(Message, st.sampled_from(Role), st.lists(parts, max_size=3).map(tuple))
chats = st.builds(
    ChatInput,
    st.lists(messages, max_size=5).map(tuple),
    st.lists(st.builds(Tool, texts, texts, texts), max_size=2).map(tuple),
)


def names(prompt, **options):
    return chain(GenerationRequest(model="", input=prompt, **options), "n").boundaries


def of(*messages, tools=(), **chat):
    return ChatInput(messages, tools, **chat)


@settings(deadline=None)
@given(chats, chats)
def test_names_are_equal_exactly_where_the_beginnings_are(first, second):
    shared = shared_count(names(first), names(second))
    same = 0
    if first.tools == second.tools:
        for mine, other in zip(first.messages, second.messages, strict=False):
            if mine != other:
                break
            same += 1
    assert shared == same


@settings(deadline=None)
@given(chats, messages)
def test_going_on_keeps_every_earlier_name(chat, message):
    before, after = names(chat), names(replace(chat, messages=(*chat.messages, message)))
    assert after[:-1] == before
    assert len(set(after)) == len(after)


@pytest.mark.parametrize(
    "changed",
    [
        {"reasoning_effort": ReasoningEffort.NONE},
        {"response_format": ResponseFormat(ResponseFormatKind.JSON_OBJECT)},
        {"response_format": ResponseFormat(ResponseFormatKind.JSON_SCHEMA, '{"a":1}')},
        {"input": of(SYSTEM, QUESTION, tools=(TOOL,))},
        {"input": of(Message(Role.USER, SYSTEM.parts), QUESTION)},
    ],
)
def test_what_a_template_may_render_differently_changes_all_names(changed):
    assert shared_count(chain(ASKED, "n").boundaries, chain(replace(ASKED, **changed), "n").boundaries) == 0


def test_tool_options_count_where_there_are_tools():
    choice = ToolChoice(ToolChoiceMode.REQUIRED)
    assert names(of(QUESTION, tool_choice=choice)) == names(of(QUESTION))
    assert names(of(QUESTION, tools=(TOOL,), tool_choice=choice)) != names(of(QUESTION, tools=(TOOL,)))
    assert names(of(QUESTION, tools=(TOOL,), parallel_tool_calls=True)) != names(of(QUESTION, tools=(TOOL,)))


def test_json_counts_byte_for_byte():
    spaced = replace(TOOL, parameters_json='{"type": "object"}')
    assert names(of(QUESTION, tools=(TOOL,))) != names(of(QUESTION, tools=(spaced,)))


def test_sampling_and_the_length_of_the_reply_do_not_matter():
    assert chain(replace(ASKED, max_reply_tokens=3, model="other"), "n") == chain(ASKED, "n")


def test_text_that_is_no_unicode_has_a_name_all_the_same():
    assert names(of(Message(Role.USER, (TextPart("\ud800"),)))) != names(of(QUESTION))


@pytest.mark.parametrize(
    "other",
    [
        namespace(replace(POCKET, digest="other"), SHAPE, "llamacpp 1"),
        namespace(replace(POCKET, chat_template="{{x}}"), SHAPE, "llamacpp 1"),
        namespace(POCKET, replace(SHAPE, key_cache_type=KvCacheType.Q8_0), "llamacpp 1"),
        namespace(POCKET, replace(SHAPE, value_cache_type=KvCacheType.Q8_0), "llamacpp 1"),
        namespace(POCKET, replace(SHAPE, flash_attention=False), "llamacpp 1"),
        namespace(POCKET, replace(SHAPE, slots_count=2), "llamacpp 1"),
        namespace(POCKET, SHAPE, "llamacpp 2"),
    ],
)
def test_the_namespace_tells_states_apart_that_do_not_fit(other):
    assert other != namespace(POCKET, SHAPE, "llamacpp 1")
    assert not set(chain(ASKED, other).boundaries) & set(chain(ASKED, "n").boundaries)


def test_context_slots_and_batch_are_not_in_the_namespace():
    larger = replace(SHAPE, context_tokens=8192, slots_count=4, kv_unified=True, batch_tokens=64)
    assert namespace(POCKET, larger, "1") == namespace(POCKET, SHAPE, "1")


def test_a_context_that_encodes_positions_otherwise_is_another_namespace():
    facts = replace(POCKET, position_switch_tokens=4096)
    short, equal, long = (
        namespace(facts, replace(SHAPE, context_tokens=tokens), "1") for tokens in (2048, 4096, 8192)
    )
    assert short == equal != long


def test_a_conversation_is_named_by_its_beginning_alone():
    name = conversation_name(of(SYSTEM, QUESTION))
    assert conversation_name(of(SYSTEM, QUESTION, ANSWER, NEXT)) == name
    assert chain(replace(ASKED, reasoning_effort=ReasoningEffort.LOW), "other").conversation == name
    assert conversation_name(of(SYSTEM, NEXT)) != name
    assert conversation_name(of(SYSTEM, QUESTION, tools=(TOOL,))) != name
    assert conversation_name(of(SYSTEM, ANSWER)) == conversation_name(of(SYSTEM))


@settings(deadline=None)
@given(chats)
def test_the_chain_names_the_conversation_as_everybody_does(chat):
    assert chain(GenerationRequest(model="", input=chat), "n").conversation == conversation_name(chat)


def test_a_raw_prompt_has_a_name_for_each_512_bytes():
    prompt = RawPrompt("x" * 1300)
    made = chain(GenerationRequest(model="", input=prompt), "n")
    assert made.weights == (512, 1024)
    assert names(RawPrompt("x" * 1300 + "y" * 500))[:2] == made.boundaries
    assert shared_count(names(RawPrompt("x" * 1000 + "y" * 300)), made.boundaries) == 1
    assert conversation_name(RawPrompt("x" * 5000)) == made.conversation == conversation_name(prompt)
    assert conversation_name(RawPrompt("x" * 1000 + "y" * 300)) != made.conversation


def test_a_short_raw_prompt_has_one_name_and_a_gap_another():
    assert chain(GenerationRequest(model="", input=RawPrompt("é")), "n").weights == (2,)
    assert names(RawPrompt("x", suffix="y")) != names(RawPrompt("x"))


def test_a_request_to_be_discarded_says_so_in_its_chain():
    assert not chain(ASKED, "n").discard
    assert chain(replace(ASKED, discard=True), "n").discard


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=10), st.integers(0, 100_000))
def test_boundary_tokens_grow_up_to_the_prompt(steps, prompt_tokens):
    weights = [sum(steps[: index + 1]) for index in range(len(steps))]
    tokens = boundary_tokens(weights, prompt_tokens)
    assert tokens[-1] == prompt_tokens
    assert list(tokens) == sorted(tokens)


def saved(name, *boundaries, bytes_count=100, last_used_at=0.0):
    return SavedPrefix(
        id=name,
        model_id="pocket",
        file_name=f"{name}.kv",
        boundaries=boundaries,
        boundary_tokens=tuple(range(1, len(boundaries) + 1)),
        tokens_count=len(boundaries),
        bytes_count=bytes_count,
        sha256="",
        prefill_seconds=1.0,
        created_at=0.0,
        last_used_at=last_used_at,
    )


def index(*prefixes, last_alone=False):
    found = {}
    for each in prefixes:
        for boundary in each.boundaries[-1:] if last_alone else each.boundaries:
            found.setdefault(boundary, {})[each.id] = each
    return found


def test_the_longest_shared_beginning_wins_then_the_least_to_read():
    short, long = saved("short", "a", "b"), saved("long", "a", "b", "c", bytes_count=900)
    branch = saved("branch", "a", "b", "x", bytes_count=300)
    everything = index(short, long, branch)
    assert best_match(("a", "b", "c", "d"), everything) == (long, 2)
    assert best_match(("a", "b", "z"), everything) == (short, 1)
    assert best_match(("a", "b", "z"), index(long, branch)) == (branch, 1)
    assert best_match(("q",), everything) is None
    assert best_match((), everything) is None


def test_a_state_supersedes_the_earlier_turns_that_it_contains():
    turn, same, branch = saved("turn", "a", "b"), saved("same", "a", "b", "c"), saved("branch", "a", "x")
    assert superseded(("a", "b", "c"), index(turn, same, branch, last_alone=True)) == (turn, same)
