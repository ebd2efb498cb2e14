"""What tests ask the double of LM Studio, and how they read its answers."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.lmstudio.start import LmStudio

Json = dict[str, Any]
ANSWER = "The capital of France is Paris."
QUESTION = {
    "model": "pocket",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
}
STREAM = {**QUESTION, "stream": True}
LONG = {**QUESTION, "messages": [{"role": "user", "content": "word " * 600}]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ASK_WEATHER = {
    **QUESTION,
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
    "tools": [WEATHER],
}
CHAT = "/v1/chat/completions"


def chunks_of(text: str) -> list[Json]:
    """The JSON of a stream's events; asserts that it came to its end."""
    *chunks, end = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert end == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def text_of(chunks: list[Json]) -> str:
    """The text that the chunks of a chat make."""
    return "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk["choices"])


async def load(server: LmStudio, **body: Any) -> Json:
    """Loads the pocket model, or another one, with these fields."""
    answer = await server.client.post("/api/v1/models/load", json={"model": "pocket", **body})
    found: Json = answer.raise_for_status().json()
    return found


async def unload_all(server: LmStudio) -> None:
    """Leaves nothing loaded."""
    for instance in (await server.state())["instances"]:
        body = {"instance_id": instance["id"]}
        (await server.client.post("/api/v1/models/unload", json=body)).raise_for_status()


async def instances(server: LmStudio) -> list[str]:
    """The ids of what is loaded."""
    return [instance["id"] for instance in (await server.state())["instances"]]


async def has_instances(server: LmStudio, names: list[str]) -> bool:
    """Whether these are loaded, and nothing else."""
    return await instances(server) == names


async def with_pocket(server: LmStudio) -> LmStudio:
    """The server with the pocket model loaded in a context of 512 tokens, and nothing else."""
    there = [(i["id"], i["jit"], i["config"]["context_length"]) for i in (await server.state())["instances"]]
    if there != [("pocket", False, 512)]:
        await unload_all(server)
        await load(server, context_length=512)
    return server
