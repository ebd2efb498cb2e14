"""LM Studio's own API: what there is, what is loaded, and how that is changed.

``instances`` and ``engine`` call it. The second API (v1) is looked for first, whatever was found before: a
server may have been updated meanwhile.
Invariant: every failure is a ``ServerProblem`` whose message is a clause for a sentence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

import msgspec

from autotuned.engines.answers import UNREADABLE
from autotuned.engines.chat_events import problem_in
from autotuned.engines.chat_json import Json, encoded
from autotuned.engines.endpoint import Endpoint
from autotuned.engines.http import ConnectionBroken, ConnectionSilent, fetch
from autotuned.engines.lmstudio.access import TOKEN_ADVICE
from autotuned.engines.lmstudio.listing import (
    InstanceConfig,
    ListedInstance,
    Listing,
    instance_of,
    read_v0,
    read_v1,
)

MODELS_V1 = "/api/v1/models"
LOAD_V1 = "/api/v1/models/load"
UNLOAD_V1 = "/api/v1/models/unload"
MODELS_V0 = "/api/v0/models"
CHAT_V0 = "/api/v0/chat/completions"
# What a list may take; it comes from the memory of the server.
LIST_SECONDS = 2.0
# What an unload may take: memory of a hundred gigabytes is given back in a few seconds.
UNLOAD_SECONDS = 30.0
# A request that makes a server load a model just in time, and computes next to nothing.
SMALLEST_CHAT: Mapping[str, object] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}


class ServerProblem(Exception):
    """The server did not do what it was asked for."""


class ServerGone(ServerProblem):
    """Nobody takes connections: whatever the server had is out of reach."""


class ServerSilent(ServerProblem):
    """The server did not answer in time; it may still do what it was asked for."""


class TokenRefused(ServerProblem):
    """The server wants a token, or another one."""

    def __init__(self) -> None:
        super().__init__(f"it refuses the API token; {TOKEN_ADVICE}")


class _Loaded(msgspec.Struct):
    instance_id: str
    load_config: InstanceConfig = msgspec.field(default_factory=InstanceConfig)


class Rest:
    """Requests to one server, each on a connection of its own."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def list(self) -> Listing:
        """Models and instances. Raises ``ServerProblem``."""
        status, body = await self._fetch("GET", MODELS_V1, seconds=LIST_SECONDS)
        if status == HTTPStatus.OK and (listing := read_v1(body)):
            return listing
        # An old server says 200 with an error to what it does not know.
        status, body = await self._fetch("GET", MODELS_V0, seconds=LIST_SECONDS)
        if status == HTTPStatus.OK and (listing := read_v0(body)):
            return listing
        raise ServerProblem(f"what answers is no LM Studio (status {status})")

    async def load(
        self, key: str, *, context_tokens: int, flash_attention: bool | None, seconds: float
    ) -> ListedInstance:
        """Makes a new instance, even beside another. Raises ``ServerProblem``."""
        wanted: Json = {"model": key, "context_length": context_tokens, "echo_load_config": True}
        if flash_attention is not None:
            wanted["flash_attention"] = flash_attention
        body = await self._post(LOAD_V1, wanted, seconds=seconds)
        try:
            loaded = msgspec.json.decode(body, type=_Loaded)
        except UNREADABLE as error:
            raise ServerProblem(f"it sent an answer that cannot be read ({error})") from error
        return instance_of(loaded.instance_id, loaded.load_config)

    async def load_by_chat(self, key: str, *, ttl_seconds: int, seconds: float) -> None:
        """Has the first API load a model, with a request of one token. Raises ``ServerProblem``.

        ``ttl_seconds`` is how long it stays idle; 0: as long as the server says.
        """
        ttl = {"ttl": ttl_seconds} if ttl_seconds else {}
        await self._post(CHAT_V0, {"model": key, **SMALLEST_CHAT, **ttl}, seconds=seconds)

    async def unload(self, instance_id: str) -> None:
        """Frees an instance; one that is not there is no error. Raises ``ServerProblem``."""
        try:
            await self._post(UNLOAD_V1, {"instance_id": instance_id}, seconds=UNLOAD_SECONDS)
        except ServerProblem:
            if any(each.id == instance_id for each in (await self.list()).instances()):
                raise

    async def _post(self, target: str, body: Json, *, seconds: float) -> bytes:
        status, answer = await self._fetch("POST", target, encoded(body), seconds=seconds)
        if status != HTTPStatus.OK:
            raise ServerProblem(f"it refuses ({quoted(problem_in(answer, status).message)})")
        return answer

    async def _fetch(
        self, method: str, target: str, body: bytes = b"", *, seconds: float
    ) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(seconds):
                status, answer = await fetch(self.endpoint, method, target, body, silence_seconds=seconds)
        except ConnectionBroken as error:
            raise ServerGone(f"it cannot be reached ({error})") from error
        except (ConnectionSilent, TimeoutError) as error:
            raise ServerSilent(f"it did not answer within {seconds:g} seconds") from error
        if status == HTTPStatus.UNAUTHORIZED:
            raise TokenRefused
        return status, answer


def quoted(message: str, longest: int = 300) -> str:
    """The server's words as part of one sentence."""
    return " ".join(message.split()).rstrip(".")[:longest]
