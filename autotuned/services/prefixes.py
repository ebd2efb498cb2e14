"""KV prefixes that survive: reads saved states back before requests, saves live ones before they are lost.

``services.generation`` calls it around every request, the model actors before they end an incarnation, and
jobs when conversations rest. It owns what is live (``live_prefixes``) and what is saved
(``saved_prefixes``). Invariants: nothing that fails here fails a request; a conversation is never
written while a request uses it, and one that a client wants discarded never at all; that a prefix was
reused is believed when the engine counts it, and a miss is a miss.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import replace

from autotuned.core.chat import GenerationRequest
from autotuned.core.errors import AutotuneError, EngineUnreachable
from autotuned.core.generation import Usage
from autotuned.core.model import ModelEntry
from autotuned.core.ports import Clock, LoadedModel, PrefixStore
from autotuned.core.prefix import PrefixChain, SavedPrefix
from autotuned.core.settings import PrefixSettings
from autotuned.log import fields
from autotuned.policy.prefix_worth import expired, is_worth_restoring, kept_promise
from autotuned.policy.prefixes import chain as chain_of
from autotuned.policy.prefixes import conversation_name, namespace
from autotuned.services.live_prefixes import Conversation, Incarnation, Promise
from autotuned.services.saved_prefixes import SavedPrefixes

# How long an incarnation that is to end may take to write its states.
SAVE_SECONDS = 10.0

_MIB = 1 << 20

_log = logging.getLogger(__name__)


class Prefixes:
    """All KV prefixes of the daemon. ``open`` before anything else; ``close`` before the database."""

    def __init__(self, *, store: PrefixStore, settings: PrefixSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._saved = SavedPrefixes(store, settings.disk_mib * _MIB)
        self._incarnations: dict[str, Incarnation] = {}
        self._enabled = False
        self._said_unfit: set[str] = set()
        self.hits_count = 0
        self.misses_count = 0

    @property
    def saved_count(self) -> int:
        """Prefixes on disk."""
        return self._saved.count

    @property
    def saved_bytes(self) -> int:
        """What they take there."""
        return self._saved.bytes_count

    async def open(self) -> None:
        """Reads the manifest. Where the folder cannot be used nothing is saved, and all else goes on."""
        try:
            await self._saved.read(self._clock.now())
        except AutotuneError as error:
            _log.warning("prefixes are not saved", extra=fields(why=error.message))
            return
        self._enabled = self._settings.disk_mib > 0
        await self.expire()

    async def close(self) -> None:
        """Returns when all that was written is committed."""
        await self._saved.settled()

    def chain(
        self, request: GenerationRequest, entry: ModelEntry, loaded: LoadedModel, engine_version: str
    ) -> PrefixChain:
        """The names of a request's prompt; without boundaries where no state of this model can be saved."""
        incarnation = self._incarnation(entry, loaded, engine_version) if self._enabled else None
        if incarnation is None:
            return PrefixChain(conversation_name(request.input), (), (), request.discard)
        return chain_of(request, incarnation.namespace)

    async def before_request(self, loaded: LoadedModel, entry: ModelEntry, chain: PrefixChain) -> None:
        """Reads a saved state back where that beats computing it. Raises ``EngineUnreachable``.

        A state that would be lost for this is written first; a save under way is waited for.
        """
        incarnation = self._incarnations.get(loaded.incarnation_id)
        if incarnation is None or not chain.boundaries:
            return
        live_tokens = incarnation.live_tokens(chain)
        replaced = incarnation.replaced_by(chain)
        promise = self._best_promise(incarnation, chain, live_tokens)
        conversation = incarnation.begin(chain)
        try:
            async with incarnation.lock:
                is_lost = replaced and (promise or not incarnation.survives_in_memory(replaced))
                if replaced and is_lost and loaded.holds(replaced.name):
                    await self._save_if_worth(incarnation, replaced)
                if promise and replaced:  # reading a file into a slot puts nothing away: what it held is gone
                    incarnation.forget(replaced)
                if promise and await self._restore(loaded, entry, conversation, promise):
                    conversation.narrow(chain)
        except EngineUnreachable as error:
            incarnation.end(chain)
            error.served = False  # the request itself was never sent
            raise
        except BaseException:
            incarnation.end(chain)
            raise

    def after_request(
        self,
        loaded: LoadedModel,
        entry: ModelEntry,
        chain: PrefixChain,
        usage: Usage,
        prefill_seconds: float,
        *,
        discard: bool,
    ) -> None:
        """The engine has ended a request well: it holds the state of its prompt and its reply."""
        incarnation = self._incarnations.get(loaded.incarnation_id)
        conversation = incarnation.end(chain) if incarnation and chain.boundaries else None
        if conversation is None:
            return
        self._account(entry, conversation, usage)
        conversation.discard = conversation.discard or discard
        conversation.settle(chain, usage, prefill_seconds, self._clock.monotonic())

    def broke_off(self, loaded: LoadedModel, chain: PrefixChain) -> None:
        """A request ended otherwise: cancelled, refused or failed. Safe to call after ``after_request``."""
        incarnation = self._incarnations.get(loaded.incarnation_id)
        if incarnation is not None:
            incarnation.end(chain)

    async def save(self, loaded: LoadedModel, within_seconds: float | None = None) -> None:
        """Writes every state of an incarnation that is about to end and that is worth it.

        What cannot be written in the time that is left (None: ``SAVE_SECONDS`` in all) is left out.
        """
        incarnation = self._incarnations.get(loaded.incarnation_id)
        if incarnation is None or loaded.is_gone:
            return
        incarnation.end_all()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (SAVE_SECONDS if within_seconds is None else within_seconds)
        all_written = True
        try:
            async with asyncio.timeout_at(deadline), incarnation.lock:
                for conversation in incarnation.to_save_at_the_end():
                    if incarnation.write_seconds(conversation) > deadline - loop.time():
                        all_written = False
                        continue
                    await self._save_if_worth(incarnation, conversation)
        except TimeoutError:
            all_written = False
        if not all_written:
            _log.warning("not all prefixes were saved in time", extra=fields(model=incarnation.model_id))

    def forget(self, loaded: LoadedModel) -> None:
        """The incarnation is gone, and with it what it held."""
        incarnation = self._incarnations.pop(loaded.incarnation_id, None)
        for file_name in incarnation.given_up_files if incarnation else ():
            self._saved.discard_file(file_name)

    async def checkpoint(self) -> None:
        """Writes what rests in a slot, so that little is lost when the process dies.

        What the engine keeps beside its slots is left there: to fetch it back would push another one out.
        """
        for incarnation in tuple(self._incarnations.values()):
            if incarnation.loaded.is_gone:
                self.forget(incarnation.loaded)
                continue
            rested_before = self._clock.monotonic() - self._settings.idle_seconds
            for conversation in incarnation.worth_a_checkpoint(rested_before):
                async with incarnation.lock:
                    if incarnation.is_serving:  # writing would hold up who is being answered
                        break
                    if incarnation.loaded.holds(conversation.name):
                        await self._save_if_worth(incarnation, conversation)

    async def expire(self) -> None:
        """Deletes what nobody used for long."""
        now = self._clock.now()
        ids = set(expired(self._saved.all, self._settings.expire_seconds, now))
        self._saved.remove([each for each in self._saved.all if each.id in ids])
        await self._saved.settled()

    async def delete(self, *model_keys: str) -> tuple[int, int]:
        """Deletes the prefixes of these models, or all of them with ""; returns how many, and their bytes.

        What is live now is written again only when its conversation goes on. A save under way is waited for.
        """
        for incarnation in tuple(self._incarnations.values()):
            if {"", incarnation.model_id} & set(model_keys):
                async with incarnation.lock:
                    for conversation in incarnation.conversations:
                        conversation.leave_unsaved()
        return await self._delete([each for each in self._saved.all if {"", each.model_id} & set(model_keys)])

    async def delete_conversation(self, conversation_id: str) -> None:
        """Deletes what belongs to a stored conversation."""
        await self._delete([each for each in self._saved.all if each.conversation_id == conversation_id])

    async def _delete(self, prefixes: list[SavedPrefix]) -> tuple[int, int]:
        self._saved.remove(prefixes)
        await self._saved.settled()
        return len(prefixes), sum(each.bytes_count for each in prefixes)

    def _incarnation(self, entry: ModelEntry, loaded: LoadedModel, engine_version: str) -> Incarnation | None:
        known = self._incarnations.get(loaded.incarnation_id)
        if known is not None:
            return known
        facts = entry.facts
        if facts is None:
            return None
        if not facts.saves_state:
            if entry.id not in self._said_unfit:
                self._said_unfit.add(entry.id)
                why = "the model cannot go back to an earlier token, and a saved state lacks its checkpoints"
                _log.info("prefixes are not saved", extra=fields(model=entry.id, why=why))
            return None
        build = f"{entry.engine} {engine_version}"
        made = Incarnation(loaded, entry.key, facts, namespace(facts, loaded.shape, build))
        self._incarnations[loaded.incarnation_id] = made
        return made

    def _best_promise(self, incarnation: Incarnation, chain: PrefixChain, live_tokens: int) -> Promise | None:
        match = self._saved.best_match(chain, rewinds=incarnation.facts.rewinds)
        if match is None:
            return None
        saved, index = match
        promise = Promise(saved, saved.boundary_tokens[index])
        worth = is_worth_restoring(
            saved,
            matched_tokens=promise.tokens_count,
            live_tokens=live_tokens,
            context_tokens=incarnation.loaded.shape.context_tokens,
        )
        return promise if worth else None

    async def _restore(
        self, loaded: LoadedModel, entry: ModelEntry, conversation: Conversation, promise: Promise
    ) -> bool:
        """Whether the engine has read the file. One that is damaged or that it refuses is removed.

        So is one that the engine dies of: it must not do so for every request of its conversation.
        """
        saved = promise.saved
        if not await self._saved.is_sound(saved):
            _log.warning("a damaged prefix is removed", extra=fields(model=entry.id, file=saved.file_name))
            self._saved.remove([saved])
            return False
        was_gone = loaded.is_gone
        try:
            restored_tokens = await loaded.restore_prefix(conversation.name, saved.file_name)
        except EngineUnreachable:
            if not was_gone:
                _log.warning(
                    "the engine died of a prefix", extra=fields(model=entry.id, file=saved.file_name)
                )
                self._saved.remove([saved])
            raise
        if not restored_tokens:
            _log.warning("the engine refused a prefix", extra=fields(model=entry.id, file=saved.file_name))
            self._saved.remove([saved])
            return False
        conversation.restored(saved)
        conversation.promise = promise
        _log.info("prefix restored", extra=fields(model=entry.id, tokens=restored_tokens))
        return True

    def _account(self, entry: ModelEntry, conversation: Conversation, usage: Usage) -> None:
        """The engine's count decides whether what was read back was of use."""
        promise, conversation.promise = conversation.promise, None
        if promise is None:
            return
        saved = promise.saved
        if kept_promise(promise.tokens_count, usage.cached_tokens):
            self.hits_count += 1
            self._saved.used(saved, self._clock.now())
            return
        self.misses_count += 1
        self._saved.remove([saved])
        conversation.saved_tokens = 0
        _log.info(
            "prefix missed",
            extra=fields(
                model=entry.id,
                promised_tokens=promise.tokens_count,
                cached_tokens=usage.cached_tokens,
            ),
        )

    async def _save_if_worth(self, incarnation: Incarnation, conversation: Conversation) -> None:
        """Has the engine write one state, with the incarnation's lock held; commits it behind."""
        if not incarnation.is_worth_saving(conversation):
            return
        now = self._clock.now()
        prefix_id = uuid.uuid4().hex
        wanted = SavedPrefix(
            id=prefix_id,
            model_id=incarnation.model_id,
            file_name=f"{prefix_id}.kv",
            boundaries=conversation.boundaries,
            boundary_tokens=conversation.boundary_tokens,
            tokens_count=conversation.tokens_count,
            bytes_count=incarnation.state_bytes(conversation),
            sha256="",
            prefill_seconds=conversation.prefill_seconds,
            created_at=now,
            last_used_at=now,
        )
        if not await self._saved.has_room(wanted, now):
            return
        try:
            written = await incarnation.loaded.save_prefix(conversation.name, wanted.file_name)
        except AutotuneError as error:
            _log.warning("prefix was not saved", extra=fields(model=wanted.model_id, reason=error.reason))
            self._saved.discard_file(wanted.file_name)
            conversation.leave_unsaved()  # until it has changed: trying again would fail again
            return
        except BaseException:  # it was given up, and the engine may go on writing until it ends
            self._saved.discard_file(wanted.file_name)
            incarnation.given_up_files.append(wanted.file_name)
            raise
        if not kept_promise(
            wanted.boundary_tokens[-1], written.tokens_count
        ):  # another state has taken its place
            self._saved.discard_file(wanted.file_name)
            incarnation.forget(conversation)
            return
        conversation.written(written.tokens_count, of_tokens=wanted.tokens_count)
        self._saved.add(
            replace(wanted, tokens_count=written.tokens_count, bytes_count=written.bytes_count), now
        )
