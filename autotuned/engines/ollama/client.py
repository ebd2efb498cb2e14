"""Short questions to Ollama's server, and the shapes of its answers.

``server``, ``catalog``, ``loading`` and ``pulling`` ask; generations stream through ``requests``.
Invariant: an answer that is not what it should be is one of the exceptions here, or of ``http``.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from autotuned.engines.answers import UNREADABLE, context, count
from autotuned.engines.chat_events import UnreadableStream
from autotuned.engines.endpoint import Endpoint
from autotuned.engines.http import ConnectionSilent, fetch

OK = 200
NOT_FOUND = 404
# A server that takes longer to say how it is counts as one that hangs.
PROBE_SECONDS = 2.0
SHOW_SECONDS = 10.0

_Answer = TypeVar("_Answer")


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Version(msgspec.Struct):
    """``/api/version``."""

    version: str


class Tag(msgspec.Struct):
    """One model of ``/api/tags``. ``remote_host`` is set for one that runs elsewhere."""

    name: str
    digest: str = ""
    size: int = 0
    remote_host: str = ""
    remote_model: str = ""

    def __post_init__(self) -> None:
        """No size is below 0 or beyond all bounds."""
        self.size = count(self.size)


class Tags(msgspec.Struct):
    """``/api/tags``."""

    models: list[msgspec.Raw] | None = None

    def sound(self) -> list[Tag]:
        """The models; one that cannot be read hides itself alone."""
        found = []
        for each in self.models or ():
            with suppress(*UNREADABLE):
                found.append(msgspec.json.decode(each, type=Tag))
        return found


class Running(msgspec.Struct):
    """One model of ``/api/ps``; ``size_vram`` is the part of ``size`` that is on an accelerator."""

    name: str
    size: int = 0
    size_vram: int = 0
    context_length: int = 0
    expires_at: str = ""

    def __post_init__(self) -> None:
        """No number is below 0 or beyond all bounds."""
        self.size, self.size_vram = count(self.size), count(self.size_vram)
        self.context_length = context(self.context_length)


class RunningList(msgspec.Struct):
    """``/api/ps``."""

    models: list[Running] | None = None


class Details(msgspec.Struct):
    """What ``/api/show`` says in short."""

    family: str = ""
    parameter_size: str = ""
    quantization_level: str = ""


class Tensor(msgspec.Struct):
    """One tensor of the file."""

    name: str = ""
    type: str = ""
    shape: list[int] = []


class Show(msgspec.Struct):
    """``/api/show``. ``model_info`` is the header of the file; its arrays are null unless asked for."""

    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    details: Details = msgspec.field(default_factory=Details)
    capabilities: list[str] | None = None
    model_info: dict[str, Any] | None = None
    tensors: list[Tensor] | None = None
    remote_host: str = ""


class Ended(msgspec.Struct):
    """What a load or an unload answers."""

    done_reason: str = ""


class _Problem(msgspec.Struct):
    error: str = ""


async def ask(
    endpoint: Endpoint,
    target: str,
    kind: type[_Answer],
    body: bytes | None = None,
    *,
    seconds: float = PROBE_SECONDS,
) -> _Answer:
    """The answer to one question; with a body it is a POST.

    Raises ``UnreadableStream``, and what ``send`` raises.
    """
    content = await send(endpoint, "GET" if body is None else "POST", target, body or b"", seconds=seconds)
    try:
        return msgspec.json.decode(content, type=kind)
    except UNREADABLE as error:
        raise UnreadableStream(str(error)) from error


async def send(endpoint: Endpoint, method: str, target: str, body: bytes, *, seconds: float) -> bytes:
    """What is answered, as it came.

    Raises ``Refused``, ``ConnectionBroken``, and ``ConnectionSilent`` where the whole takes longer than
    ``seconds``.
    """
    try:
        async with asyncio.timeout(seconds):
            status, content = await fetch(endpoint, method, target, body, silence_seconds=seconds)
    except TimeoutError as error:
        raise ConnectionSilent(f"no answer within {seconds:g} seconds") from error
    if status != OK:
        raise Refused(status, error_text(content))
    return content


def error_text(content: bytes) -> str:
    """The server's own words in the body of an error."""
    try:
        return msgspec.json.decode(content, type=_Problem).error
    except UNREADABLE:
        return content[:500].decode(errors="replace")
