"""Downloads and deletions, which the server does by itself.

``engine`` owns one. A pull is one answer that lasts as long as the download; closing its connection is how it
is cancelled, and Ollama keeps what came for the next one.
Invariants: a pull that does not raise ended with the server's own word that all is there; once ``end`` was
called none goes on.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from autotuned.core.download import DownloadPhase, DownloadProgress
from autotuned.core.errors import AutotuneError, ShuttingDown, StorageFull
from autotuned.engines.chat_events import UnreadableStream
from autotuned.engines.http import ConnectionBroken, ConnectionSilent, Exchange
from autotuned.engines.ollama.client import NOT_FOUND, OK, Refused, error_text, send
from autotuned.engines.ollama.names import registry_host
from autotuned.engines.ollama.pull_answers import PullReader, PullRefused, pull_problem
from autotuned.engines.ollama.refusals import quoted
from autotuned.engines.ollama.requests import lines_of
from autotuned.engines.ollama.server import Server
from autotuned.engines.plain_hosts import may_be_plain

PULL_TARGET = "/api/pull"
DELETE_TARGET = "/api/delete"
# Files of hundreds of gigabytes take a while to go on some file systems.
DELETE_SECONDS = 60.0
# While it reads them again to verify them, the server says nothing.
VERIFY_SECONDS = 3600.0


class Pulling:
    """Pulls and deletes on one server. ``insecure_hosts`` are registries that are asked without TLS."""

    def __init__(self, *, server: Server, silence_seconds: float, insecure_hosts: tuple[str, ...]) -> None:
        self._server = server
        self._silence_seconds = silence_seconds
        self._insecure_hosts = insecure_hosts
        self._open: set[Exchange] = set()
        self._has_ended = False

    def end(self) -> None:
        """Breaks off what runs, and lets nothing begin. Safe to call twice."""
        self._has_ended = True
        for exchange in tuple(self._open):
            exchange.close()

    async def pull(self, name: str, on_progress: Callable[[DownloadProgress], None]) -> PullReader:
        """Has the server download; returns what it told. Raises what ``Engine.pull`` raises."""
        if self._has_ended:
            raise ShuttingDown
        on_progress(DownloadProgress(phase=DownloadPhase.RESOLVING))
        exchange = Exchange(
            endpoint=self._server.endpoint,
            method="POST",
            target=PULL_TARGET,
            body=self._body(name),
            silence_seconds=self._silence_seconds,
        )
        self._open.add(exchange)
        try:
            return await self._read(exchange, name, on_progress)
        except PullRefused as error:
            raise pull_problem(str(error), name) from error
        except UnreadableStream as error:
            raise self._server.unreachable(
                f"sent an answer that cannot be read ({error})", advice="pull it again"
            ) from error
        except (ConnectionBroken, ConnectionSilent) as error:
            raise await self._failure(error) from error
        finally:
            self._open.discard(exchange)

    async def delete(self, name: str) -> bool:
        """Has the server delete a name and what no other needs; False where it has none like that.

        Raises ``EngineUnreachable``, and ``StorageFull`` where its disk refuses.
        """
        body = msgspec.json.encode({"model": name})
        try:
            await send(self._server.endpoint, "DELETE", DELETE_TARGET, body, seconds=DELETE_SECONDS)
        except Refused as error:
            if error.status == NOT_FOUND:
                return False
            raise StorageFull(
                f'Ollama did not delete "{name}" ({quoted(error.message)}); look after its disk.'
            ) from error
        except (ConnectionBroken, ConnectionSilent) as error:
            raise self._server.unreachable(
                f'did not delete "{name}" ({error})', advice="try again"
            ) from error
        return True

    def _body(self, name: str) -> bytes:
        body: dict[str, object] = {"model": name, "stream": True}
        if may_be_plain(registry_host(name), self._insecure_hosts):
            body["insecure"] = True
        return msgspec.json.encode(body)

    async def _read(
        self, exchange: Exchange, name: str, on_progress: Callable[[DownloadProgress], None]
    ) -> PullReader:
        reader = PullReader()
        async with exchange:
            if self._has_ended:  # while it connected
                raise ShuttingDown
            if await exchange.status() != OK:
                raise pull_problem(error_text(await exchange.read_all()), name)
            async for line in lines_of(exchange):
                progress = reader.feed(line)
                if progress.phase is DownloadPhase.VERIFYING:
                    exchange.allow_silence(max(self._silence_seconds, VERIFY_SECONDS))
                on_progress(progress)
                if reader.is_finished:
                    return reader
        raise self._server.unreachable("ended its answer too early", advice="pull it again")

    async def _failure(self, error: Exception) -> AutotuneError:
        """Why a connection ended before its answer did."""
        if self._has_ended:
            return ShuttingDown()
        if isinstance(error, ConnectionSilent):
            return self._server.unreachable(f"fell silent ({error})", advice="pull it again")
        cause = await self._server.failed()
        what = f"is gone: {cause}" if cause else f"broke off its answer ({error})"
        return self._server.unreachable(what, advice="pull it again")
