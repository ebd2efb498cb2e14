"""The buffer between engine and reader: order, merging, ends."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.generation import (
    Queued,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)
from autotuned.services.mailbox import Mailbox, merge

TEXTS = st.builds(
    TextDelta,
    st.integers(0, 2),
    st.text(max_size=5),
    st.lists(
        st.builds(TokenLogprob, st.text(max_size=2), st.binary(max_size=2), st.floats(-9, 0), st.just(())),
        max_size=2,
    ).map(tuple),
)
THOUGHTS = st.builds(ReasoningDelta, st.integers(0, 2), st.text(max_size=5))
CALLS = st.builds(ToolCallDelta, st.integers(0, 2), st.just(""), st.just(""), st.text(max_size=5))


def flat(events):
    """Each character and each log probability, with the part that it belongs to."""
    items = []
    for event in events:
        text = event.arguments_json_fragment if isinstance(event, ToolCallDelta) else event.text
        items += [(type(event), event.part_index, character) for character in text]
    logprobs = [
        (event.part_index, item)
        for event in events
        if isinstance(event, TextDelta)
        for item in event.logprobs
    ]
    return items, logprobs


@given(st.lists(TEXTS | THOUGHTS | CALLS, max_size=30))
def test_merging_keeps_every_character_and_log_probability_in_order(events):
    merged = merge(events)
    assert flat(merged) == flat(events)
    assert all((type(a), a.part_index) != (type(b), b.part_index) for a, b in pairwise(merged))


def test_the_first_fragment_of_a_call_keeps_its_id_and_name():
    events = [
        ToolCallDelta(1, "call-1", "get_weather", ""),
        ToolCallDelta(1, "", "", '{"city"'),
        ToolCallDelta(1, "", "", ': "Oslo"}'),
    ]
    assert merge(events) == [ToolCallDelta(1, "call-1", "get_weather", '{"city": "Oslo"}')]


def test_of_several_positions_the_last_counts():
    assert merge([Queued(3), Queued(2), Queued(1), TextDelta(0, "a")]) == [Queued(1), TextDelta(0, "a")]


async def test_a_reader_that_keeps_up_gets_every_event_and_a_slow_one_gets_them_joined():
    mailbox = Mailbox()
    events = mailbox.events()
    mailbox.put(TextDelta(0, "a"))
    assert await anext(events) == TextDelta(0, "a")
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    mailbox.put(TextDelta(0, "b"))
    assert await waiting == TextDelta(0, "b")
    for text in "cde":
        mailbox.put(TextDelta(0, text))
    mailbox.end()
    assert [event async for event in events] == [TextDelta(0, "cde")]


async def test_an_error_comes_after_what_was_pending():
    mailbox = Mailbox()
    mailbox.put(TextDelta(0, "half an ans"))
    mailbox.end(ValueError("the end"))
    seen = []

    async def read():
        async for event in mailbox.events():
            seen.append(event)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(ValueError, match="the end"):
        await read()
    assert seen == [TextDelta(0, "half an ans")]
