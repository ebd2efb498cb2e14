"""The models that the server has, each looked at once.

``engine`` owns one and asks it for the list. Invariant: a model is asked about again only when its digest
is another one; what cannot be learned of one model hides no other.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from autotuned.core.errors import ModelInvalid
from autotuned.engines.chat_events import UnreadableStream
from autotuned.engines.endpoint import Endpoint
from autotuned.engines.http import ConnectionBroken, ConnectionSilent
from autotuned.engines.ollama.client import SHOW_SECONDS, Refused, Show, Tag, Tags, ask
from autotuned.engines.ollama.facts import (
    Known,
    blob_path,
    can_answer,
    facts_of_answer,
    facts_of_file,
    is_readable,
    stop_sequences,
)
from autotuned.log import fields

# The server reads a file for each answer.
ASKED_AT_ONCE = 4

_log = logging.getLogger(__name__)


class Catalog:
    """Models by name. ``files_are_here``: paths that the server names may be files of this machine."""

    def __init__(self, endpoint: Endpoint, *, files_are_here: bool) -> None:
        self._endpoint = endpoint
        self._files_are_here = files_are_here
        self._known: dict[str, Known] = {}
        # By name and digest; None for those that answer nothing.
        self._looked_at: dict[tuple[str, str], Known | None] = {}

    @property
    def models(self) -> tuple[Known, ...]:
        """Those of the last look, in the server's order."""
        return tuple(self._known.values())

    def get(self, name: str) -> Known | None:
        """The model of this name."""
        return self._known.get(name)

    def get_like(self, name: str) -> Known | None:
        """The model of this name, whatever its case: the server tells none apart by it."""
        wanted = name.lower()
        return next((known for known in self.models if known.name.lower() == wanted), None)

    def is_shared(self, name: str) -> bool:
        """Whether another name has the same file."""
        key = self.runner_key(name)
        return any(known.name != name and known.runner_key == key for known in self.models)

    def runner_key(self, name: str) -> str:
        """What names the process that a model of the server runs in."""
        known = self._known.get(name)
        return known.runner_key if known else name

    async def look(self) -> None:
        """Brings the list up to date. Raises what ``ask`` raises; the list is then what it was."""
        tags = (await ask(self._endpoint, "/api/tags", Tags)).sound()
        here = [tag for tag in tags if not tag.remote_host and not tag.remote_model]
        gate, silent = asyncio.Semaphore(ASKED_AT_ONCE), asyncio.Event()
        found = await asyncio.gather(*(self._known_of(tag, gate, silent) for tag in here))
        self._looked_at = {
            key: known for key, known in self._looked_at.items() if key in {(t.name, t.digest) for t in here}
        }
        self._known = {known.name: known for known in found if known is not None}

    def forget(self) -> None:
        """The server is not there: there is nothing to run."""
        self._known = {}

    async def _known_of(self, tag: Tag, gate: asyncio.Semaphore, silent: asyncio.Event) -> Known | None:
        """What is known of it. After the first silence no other is asked about in this look."""
        key = (tag.name, tag.digest)
        if key in self._looked_at:
            return self._looked_at[key]
        try:
            async with gate:
                if silent.is_set():
                    return _unsound(tag, f'Ollama did not describe "{tag.name}" (it hangs).')
                known = await self._learn(tag)
        except (Refused, UnreadableStream) as error:
            _log.warning("a model cannot be described", extra=fields(model=tag.name, reason=str(error)))
            known = _unsound(tag, f'Ollama cannot describe "{tag.name}" ({error}); pull it again.')
        except (ConnectionBroken, ConnectionSilent) as error:
            # It may tell the next time.
            silent.set()
            return _unsound(tag, f'Ollama did not describe "{tag.name}" ({error}).')
        self._looked_at[key] = known
        if known is not None:
            self._known[known.name] = known  # for those who cannot wait until all are told
        return known

    async def _learn(self, tag: Tag) -> Known | None:
        show = await self._show(tag, verbose=False)
        if not can_answer(show):
            return None
        path = blob_path(show)
        try:
            if self._files_are_here and is_readable(path):
                facts = await asyncio.to_thread(facts_of_file, path, show)
            else:
                facts = facts_of_answer(tag.name, tag.digest, await self._show(tag, verbose=True))
        except ModelInvalid as error:
            return _unsound(tag, error.message)
        return Known(
            name=tag.name,
            runner_key=path or tag.name,
            size_bytes=tag.size,
            facts=facts,
            stop_sequences=stop_sequences(show),
            fills_in="insert" in (show.capabilities or ()),
        )

    async def _show(self, tag: Tag, *, verbose: bool) -> Show:
        body = msgspec.json.encode({"model": tag.name, "verbose": verbose})
        return await ask(self._endpoint, "/api/show", Show, body, seconds=SHOW_SECONDS)


def _unsound(tag: Tag, problem: str) -> Known:
    return Known(name=tag.name, runner_key=tag.name, size_bytes=tag.size, facts=None, problem=problem)
