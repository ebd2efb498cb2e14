"""How large a prompt is, before any tokenizer has seen it."""

from __future__ import annotations

from autotuned.core.chat import (
    ChatInput,
    ImagePart,
    Message,
    Part,
    RawPrompt,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

# What a template writes around a tool: about what the wire of OpenAI's dialect writes.
_TOOL_FRAME_BYTES = len('{"type": "function", "function": {"name": "", "description": "", "parameters": }}\n')


def prompt_bytes(prompt: ChatInput | RawPrompt) -> int:
    """UTF-8 bytes of everything that the model will read, without the template's own text.

    A tool counts with the JSON around it: many small tools are mostly that.
    """
    if isinstance(prompt, RawPrompt):
        return _text_bytes(prompt.prompt) + _text_bytes(prompt.suffix)
    messages = sum(_part_bytes(part) for message in prompt.messages for part in message.parts)
    tools = sum(
        _text_bytes(tool.name)
        + _text_bytes(tool.description)
        + _text_bytes(tool.parameters_json)
        + _TOOL_FRAME_BYTES
        for tool in prompt.tools
    )
    return messages + tools


def messages_count(prompt: ChatInput | RawPrompt) -> int:
    """Messages: each costs a few tokens of template. Tools are counted by their bytes."""
    return 0 if isinstance(prompt, RawPrompt) else len(prompt.messages)


def has_images(messages: tuple[Message, ...]) -> bool:
    """Whether any message carries an image."""
    return any(isinstance(part, ImagePart) for message in messages for part in message.parts)


def _part_bytes(part: Part) -> int:
    match part:
        case TextPart() | ReasoningPart():
            return _text_bytes(part.text)
        case ToolCallPart():
            return _text_bytes(part.name) + _text_bytes(part.arguments_json)
        case ToolResultPart():
            return _text_bytes(part.text)
        case ImagePart():
            return 0


def _text_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
