"""How large a prompt is before any tokenizer has seen it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.chat import (
    ChatInput,
    ImagePart,
    Message,
    RawPrompt,
    ReasoningPart,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from autotuned.policy.prompt import has_images, messages_count, prompt_bytes


@given(st.text(), st.text())
def test_text_counts_in_utf_8_bytes(prompt, suffix):
    encodable = [text.encode("utf-8", "ignore").decode() for text in (prompt, suffix)]
    assert prompt_bytes(RawPrompt(*encodable)) == sum(len(text.encode()) for text in encodable)


def test_every_part_that_the_model_reads_counts():
    chat = ChatInput(
        messages=(
            Message(Role.USER, (TextPart("four"), TextPart("één"))),
            Message(Role.ASSISTANT, (ReasoningPart("hm"), ToolCallPart("id", "f", '{"a":1}'))),
            Message(Role.TOOL, (ToolResultPart("id", "f", "ok"),)),
        ),
        tools=(Tool("f", "does", "{}"),),
    )
    frame = len('{"type": "function", "function": {"name": "", "description": "", "parameters": }}\n')
    assert prompt_bytes(chat) == 4 + 5 + 2 + 1 + 7 + 2 + 1 + 4 + 2 + frame
    assert messages_count(chat) == 3


def test_images_are_seen():
    picture = Message(Role.USER, (TextPart("look"), ImagePart(b"x", "image/png")))
    assert has_images((picture,))
    assert not has_images((Message(Role.USER, (TextPart("look"),)),))
