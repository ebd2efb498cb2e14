"""Replies read piece by piece: stop sequences, thoughts, calls, and text cut within a character."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.engines.mlx.inside.replies import Marks, ReplyReader
from autotuned.engines.mlx.inside.stops import StopSequences

MARKS = Marks(
    think_start="<think>",
    think_end="</think>",
    call_start="<tool_call>",
    call_end="</tool_call>",
    parse=json.loads,
)


def read(pieces, *, thinks=False, marks=MARKS):
    """Text, thoughts and calls of a reply."""
    reader = ReplyReader(marks, thinks=thinks)
    deltas = [delta for piece in pieces for delta in reader.feed(piece)] + reader.finish()
    said = "".join(delta.get("content", "") for delta in deltas)
    thought = "".join(delta.get("reasoning_content", "") for delta in deltas)
    calls = [call["function"] for delta in deltas for call in delta.get("tool_calls", [])]
    return said, thought, [(call["name"], json.loads(call["arguments"])) for call in calls]


def cut(text, places):
    """A text in pieces."""
    ends = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(ends)]


places = st.lists(st.integers(0, 1000), max_size=30)


@given(places)
def test_a_thought_and_an_answer_are_told_apart_however_they_are_cut(places):
    text = "<think>\nThey greet me.\n</think>\n\nHello!\nHow are you?"
    assert read(cut(text, places)) == ("Hello!\nHow are you?", "They greet me.", [])


@given(places)
def test_a_thought_that_the_template_began_is_one(places):
    text = "They greet me.\n</think>\n\nHello!"
    assert read(cut(text, places), thinks=True) == ("Hello!", "They greet me.", [])


@given(places)
def test_calls_are_read_and_leave_no_text(places):
    text = (
        '\n<tool_call>\n{"name": "a", "arguments": {"x": "é"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "b", "arguments": {}}\n</tool_call>'
    )
    assert read(cut(text, places)) == ("", "", [("a", {"x": "é"}), ("b", {})])


@given(places)
def test_what_only_looks_like_a_mark_is_text(places):
    text = "1 < 2, <tool, <think about it> and a line\n"
    assert read(cut(text, places)) == (text, "", [])


@pytest.mark.parametrize("call", ["not JSON", '{"name": 7}', "[]", '{"arguments": {}}'])
def test_a_call_that_cannot_be_read_comes_out_as_text(call):
    said, _, calls = read([f"<tool_call>{call}</tool_call>"])
    assert calls == []
    assert call in said


def test_a_call_that_was_not_closed_is_read_at_the_end():
    assert read(['<tool_call>{"name": "a", "arguments": {}}'])[2] == [("a", {})]


def test_without_marks_everything_is_said_at_once():
    reader = ReplyReader(Marks(), thinks=False)
    assert reader.feed("<think>") == [{"content": "<think>"}]
    assert reader.finish() == []


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), places)
def test_no_part_of_a_stop_sequence_is_given_out(text, sequences, places):
    stops = StopSequences(sequences)
    given_out = ""
    for piece in cut(text, places):
        if stops.found:
            break
        given_out += stops.feed(piece)
        assert not any(sequence in given_out for sequence in sequences)
    if not stops.found:
        given_out += stops.rest()
    found = [text.find(sequence) for sequence in sequences if sequence in text]
    assert stops.found == bool(found)
    if not found:
        assert given_out == text
    else:
        assert text.startswith(given_out)
        assert not any(sequence in given_out for sequence in sequences)
