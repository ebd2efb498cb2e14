"""What a Q8_0 KV cache costs in answers: the pocket model's, right or wrong, against an F16 one.

Two daemons answer the same dialogues at temperature 0. The dialogues are made afresh with a seed of
their own, so that none of them is one that the model was trained on by name; what each skill's right
answer is comes with them.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import autotune
from autotune.v1 import chat_pb2, inference_service_pb2

from tests.bench import processes
from tests.bench.report import Row

DIALOGUES_PER_SKILL = 300
SEED = 77
REPLY_TOKENS = 128
SCRIPTS = Path(__file__).parents[2] / "packaging" / "pocket"

_ROLES = {
    "system": chat_pb2.ROLE_SYSTEM,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "tool": chat_pb2.ROLE_TOOL,
}


def measure() -> list[Row]:
    right: dict[str, dict[str, list[bool]]] = {}
    same: dict[str, int] = {}
    dialogues = list(_dialogues())
    with ExitStack() as stack:
        clients = [stack.enter_context(_client(stack, kv_cache)) for kv_cache in ("f16", "q8_0")]
        for dialogue in dialogues:
            answers = [_answer(client, dialogue) for client in clients]
            verdicts = right.setdefault(dialogue["skill"], {"f16": [], "q8_0": []})
            for name, answer in zip(("f16", "q8_0"), answers, strict=True):
                verdicts[name].append(_is_right(answer, dialogue))
            same[dialogue["skill"]] = same.get(dialogue["skill"], 0) + (answers[0] == answers[1])
    return [row for skill, verdicts in right.items() for row in _rows(skill, verdicts, same[skill])]


def _rows(skill: str, verdicts: dict[str, list[bool]], same: int) -> Iterator[Row]:
    count = len(verdicts["f16"])
    both = sum(a and b for a, b in zip(verdicts["f16"], verdicts["q8_0"], strict=True))
    yield Row(f"{skill}: right with F16", 100 * sum(verdicts["f16"]) / count, "%")
    yield Row(f"{skill}: right with Q8_0", 100 * sum(verdicts["q8_0"]) / count, "%")
    yield Row(
        f"{skill}: of those right with F16, right with Q8_0", 100 * both / max(1, sum(verdicts["f16"])), "%"
    )
    yield Row(f"{skill}: equal text", 100 * same / count, "%")


def _client(stack: ExitStack, kv_cache: str) -> autotune.Client:
    folder = stack.enter_context(processes.home())
    stack.enter_context(processes.daemon(folder, "--set", f"models.kv_cache={kv_cache}"))
    return autotune.Client(f"unix:{folder / 'run' / 'autotuned.sock'}", "bench")


def _dialogues() -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(SCRIPTS))
    try:
        import corpus
        import dialogues
    finally:
        sys.path.remove(str(SCRIPTS))
    chance = random.Random(SEED)
    for maker, _ in corpus.SKILLS:
        for _ in range(DIALOGUES_PER_SKILL):
            yield dialogues.dialogue(maker, chance)


def _answer(client: autotune.Client, dialogue: dict[str, Any]) -> dict[str, Any]:
    request = inference_service_pb2.GenerateRequest(
        chat=chat_pb2.ChatInput(
            messages=[_message(entry) for entry in dialogue["messages"]],
            tools=[_tool(tool["function"]) for tool in dialogue["tools"]],
        ),
        sampling=inference_service_pb2.Sampling(temperature=0.0),
        max_reply_tokens=REPLY_TOKENS,
    )
    builder = autotune.ReplyBuilder()
    for event in client.generate(request):
        builder.add(event)
    reply = builder.reply()
    return {
        "content": reply.text,
        "calls": [(call.name, json.loads(call.arguments_json)) for call in reply.tool_calls],
    }


def _is_right(answer: dict[str, Any], dialogue: dict[str, Any]) -> bool:
    expected = dialogue["expected"]
    if dialogue["match"] == "prefix":
        return bool(answer["content"].startswith(expected["content"]))
    calls = [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in expected.get("tool_calls", [])
    ]
    return answer["content"] == (expected.get("content") or "") and answer["calls"] == calls


def _message(entry: dict[str, Any]) -> chat_pb2.Message:
    parts = []
    if entry["role"] == "tool":
        result = chat_pb2.ToolResult(tool_call_id=entry["tool_call_id"], text=entry["content"])
        return chat_pb2.Message(role=_ROLES["tool"], parts=[chat_pb2.Part(tool_result=result)])
    if entry.get("content"):
        parts.append(chat_pb2.Part(text=entry["content"]))
    for call in entry.get("tool_calls", []):
        function = call["function"]
        parts.append(
            chat_pb2.Part(
                tool_call=chat_pb2.ToolCall(
                    id=call["id"], name=function["name"], arguments_json=function["arguments"]
                )
            )
        )
    return chat_pb2.Message(role=_ROLES[entry["role"]], parts=parts)


def _tool(function: dict[str, Any]) -> chat_pb2.Tool:
    return chat_pb2.Tool(
        name=function["name"],
        description=function.get("description", ""),
        parameters_json=json.dumps(function["parameters"]),
    )
