"""Write dialogues with their expected answers, for tests of what the pocket model can do.

    python dialogues.py OUT.json

The seed is fixed: the same corpus gives the same file. Every entry has the messages up to a turn of
the assistant, the tools on offer, and the answer that belongs there, in the form of OpenAI's chat API.
``match`` says how an answer is compared: "exact" (all but the id of a tool call), or "prefix" for a
story, whose course is free.
"""

from __future__ import annotations

import json
import pathlib
import random
import sys

import corpus

SEED = 20_261_123
PER_SKILL = 36
STORY_BEGINNING = "Once upon a time there was a"


def dialogue(maker, r: random.Random) -> dict:
    """One sample, cut at a turn of the assistant."""
    messages, tools = maker(r)
    messages = with_call_ids(messages)
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    # What was told is asked for at the end; before that, one acknowledgement is as good as another.
    turn = turns[-1] if maker in {corpus.remember, corpus.long_memory} else r.choice(turns)
    expected, match = messages[turn], "exact"
    if maker is corpus.story:
        expected, match = {"role": "assistant", "content": STORY_BEGINNING}, "prefix"
    return {
        "skill": maker.__name__,
        "messages": messages[:turn],
        "tools": tools or [],
        "expected": expected,
        "match": match,
    }


def with_call_ids(messages: list[corpus.Message]) -> list[corpus.Message]:
    """The same conversation with arguments as JSON text and an id that joins each call and its result."""
    out, call_id = [], ""
    for message in messages:
        message = dict(message)
        if message.get("tool_calls"):
            call_id = f"call_{len(out)}"
            (call,) = message["tool_calls"]
            function = call["function"]
            arguments = json.dumps(function["arguments"])
            message["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": function["name"], "arguments": arguments}}
            ]
        elif message["role"] == "tool":
            message = {"role": "tool", "tool_call_id": call_id, "content": message["content"]}
        out.append(message)
    return out


def dialogues() -> list[dict]:
    """A few dozen of each skill."""
    r = random.Random(SEED)
    return [dialogue(maker, r) for maker, _ in corpus.SKILLS for _ in range(PER_SKILL)]


def text() -> str:
    """All of them as JSON, one a line."""
    return "[\n" + ",\n".join(json.dumps(entry) for entry in dialogues()) + "\n]\n"


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).write_text(text())
