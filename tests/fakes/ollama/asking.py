"""Questions that tests ask the double."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from tests.fakes.ollama.running import RunningOllama

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
# Takes the pocket model seconds, and never says the same twice in a row.
ENDLESS = {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1500}


async def chat(
    ollama: RunningOllama, messages: Sequence[dict[str, Any]] = FRANCE, **body: Any
) -> httpx.Response:
    """An answer that is not streamed; greedy, so that it is the same each time."""
    options = {"temperature": 0} | body.pop("options", {})
    body = {"model": "pocket", "messages": messages, "stream": False, "options": options} | body
    return await ollama.client.post("/api/chat", json=body)
