"""What the daemon uses of what LM Studio has in memory, and who may change it.

``engine`` owns one. A load always lists first: an instance that does is used as it is, whoever loaded it;
one that does not is unloaded before another is loaded. A load that was sent is waited for even when nobody
wants it any more: LM Studio goes on with it, and an instance that nobody knows would stay for ever.
Invariants: of one model there is one load or unload at a time, and never a second instance of the daemon's
making; every ``Use`` of an instance that is there no more has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from autotuned.core.errors import ModelLoadFailed, ModelNotFound
from autotuned.core.plan import LoadShape
from autotuned.engines.lmstudio.facts import NAME
from autotuned.engines.lmstudio.listing import Api, ListedInstance, ListedModel, Listing
from autotuned.engines.lmstudio.rest import Rest, ServerGone, ServerProblem, ServerSilent
from autotuned.engines.lmstudio.shapes import wanted_flash_attention
from autotuned.log import fields

# A request goes out without a look when the last one is so young.
FRESH_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Use:
    """One incarnation's use of an instance; it ends once, with a cause."""

    def __init__(self, key: str, instance: ListedInstance) -> None:
        self.key = key
        self.instance = instance
        self.cause = ""
        self._ended = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether it ended."""
        return bool(self.cause)

    def end(self, cause: str) -> None:
        """Ends it; the first cause counts."""
        self.cause = self.cause or cause
        self._ended.set()

    async def wait(self) -> str:
        """The cause, once it ended."""
        await self._ended.wait()
        return self.cause


@dataclass(slots=True)
class _Held:
    """An instance in use."""

    key: str
    instance: ListedInstance
    since: float
    uses: list[Use] = field(default_factory=list)


class Instances:
    """Loads, shares and unloads. ``on_listing`` hears of every list."""

    def __init__(self, *, load_seconds: float, on_listing: Callable[[Listing], None]) -> None:
        self._load_seconds = load_seconds
        self._on_listing = on_listing
        self._held: dict[str, _Held] = {}
        # Those that this daemon loaded, and since when: they are its own to unload.
        self._own: dict[str, float] = {}
        # Models whose load was not answered in time: what comes of it is the daemon's own, too.
        self._unanswered: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._looked_at = float("-inf")

    async def look(self, rest: Rest) -> Listing:
        """Lists, and ends what is there no more. Raises ``ServerProblem``."""
        began = _now()
        try:
            listing = await rest.list()
        except ServerGone as error:
            self._end_all(f"LM Studio's server is gone: {error}")
            raise
        self._looked_at = max(self._looked_at, began)
        there = {instance.id: instance for instance in listing.instances()}
        for key in tuple(self._unanswered):
            for instance in listing.instances_of(key):
                self._own.setdefault(instance.id, began)
                self._unanswered.discard(key)
        for instance_id, held in tuple(self._held.items()):
            found = there.get(instance_id)
            if held.since >= began:
                continue  # the list may be older than the load
            if found is None:
                self._end(
                    instance_id, "LM Studio has it in memory no more: it was unloaded there, or crashed"
                )
            elif found.context_tokens != held.instance.context_tokens:
                self._end(
                    instance_id,
                    f"LM Studio loaded it anew, with a context of {found.context_tokens:,} tokens",
                )
        if listing.api is Api.V1:
            self._own = {each: since for each, since in self._own.items() if each in there or since >= began}
        self._on_listing(listing)
        return listing

    async def look_if_stale(self, rest: Rest) -> None:
        """A look, unless there was one a moment ago: a request to what is gone would load it anew, unseen."""
        if _now() - self._looked_at >= FRESH_SECONDS:
            await self.look(rest)

    async def acquire(self, rest: Rest, key: str, shape: LoadShape, *, ttl_seconds: int) -> Use:
        """An instance of this model for this shape.

        Raises ``ServerProblem``, ``ModelNotFound`` and ``ModelLoadFailed``.
        """
        async with self._lock(key):
            listing = await self.look(rest)
            model = listing.models.get(key)
            if model is None:
                raise ModelNotFound(key, "", engine=NAME)
            present = listing.instances_of(key)
            if listing.api is Api.V0:
                return self._use(
                    key, present[0] if present else await self._load_by_chat(rest, key, ttl_seconds)
                )
            if present and self._serves(present[0], shape):
                return self._use(key, present[0])
            for instance in present:
                await self._replace(rest, key, instance, shape)
            return self._use(key, await self._load(rest, model, shape))

    async def release(self, rest: Rest, use: Use) -> None:
        """Ends a use, and with the last one the instance, whose memory is free then."""
        async with self._lock(use.key):
            held = self._held.get(use.instance.id)
            if use.is_over or held is None:
                return
            held.uses.remove(use)
            try:
                if not held.uses:
                    self._held.pop(use.instance.id, None)
                    use.end(await self._unload(rest, use.instance.id))
            finally:
                use.end("it was unloaded")

    async def let_go(self, rest: Rest, use: Use) -> None:
        """Ends a use; an instance that others loaded stays."""
        if use.instance.id in self._own:
            await self.release(rest, use)
            return
        held = self._held.get(use.instance.id)
        if held is not None and use in held.uses:
            held.uses.remove(use)
        use.end("the daemon let go of it")

    async def unload_foreign(self, rest: Rest, key: str) -> bool:
        """Unloads the instances of a model that others loaded. Raises ``ServerProblem``.

        False where there is none, or where the server cannot be told to.
        """
        async with self._lock(key):
            listing = await self.look(rest)
            foreign = [each for each in listing.instances_of(key) if each.id not in self._held]
            if listing.api is Api.V0 or not foreign:
                return False
            for instance in foreign:
                await rest.unload(instance.id)
            await self.look(rest)
            return True

    async def close(self, rest: Rest) -> None:
        """Unloads what the daemon loaded; what others loaded stays."""
        await asyncio.gather(*(self._unload(rest, instance_id) for instance_id in tuple(self._own)))
        self._end_all("the engine was closed")

    def _serves(self, instance: ListedInstance, shape: LoadShape) -> bool:
        """An own instance has to have the shape; of somebody else's it is enough that it is large enough."""
        if instance.id not in self._own:
            return instance.context_tokens >= shape.context_tokens
        return instance.context_tokens == shape.context_tokens and instance.flash_attention in {
            None,
            shape.flash_attention,
        }

    async def _replace(self, rest: Rest, key: str, instance: ListedInstance, shape: LoadShape) -> None:
        _log.info(
            "unloading an instance for another shape",
            extra=fields(
                model=key,
                instance=instance.id,
                loaded_by="daemon" if instance.id in self._own else "others",
                context_tokens=instance.context_tokens,
                wanted_context_tokens=shape.context_tokens,
            ),
        )
        await rest.unload(instance.id)
        self._own.pop(instance.id, None)
        self._end(instance.id, f"it was loaded anew with a context of {shape.context_tokens:,} tokens")

    async def _load(self, rest: Rest, model: ListedModel, shape: LoadShape) -> ListedInstance:
        """Loads the only instance. Should another have appeared meanwhile, ours goes and that one is used."""
        try:
            loaded = await rest.load(
                model.key,
                context_tokens=shape.context_tokens,
                flash_attention=wanted_flash_attention(model, shape),
                seconds=self._load_seconds,
            )
        except ServerGone:
            raise
        except ServerProblem as error:
            if isinstance(error, ServerSilent):
                self._unanswered.add(model.key)
            raise ModelLoadFailed(
                f'LM Studio did not load "{model.key}": {error}; look into its log ("lms log stream").',
                model=model.key,
            ) from error
        self._own[loaded.id] = _now()
        present = (await self.look(rest)).instances_of(model.key)
        others = [instance for instance in present if instance.id != loaded.id]
        if others:
            _log.warning(
                "somebody else loaded the model at the same time; that instance is used",
                extra=fields(model=model.key, unloaded=loaded.id, instance=others[0].id),
            )
            await rest.unload(loaded.id)
            self._own.pop(loaded.id, None)
            return others[0]
        if not present:
            raise ModelLoadFailed(
                f'LM Studio loaded "{model.key}" and has it in memory no more; look into its log '
                '("lms log stream").',
                model=model.key,
            )
        return present[0]

    async def _load_by_chat(self, rest: Rest, key: str, ttl_seconds: int) -> ListedInstance:
        """Has a server load that cannot be told to: the context is its own."""
        try:
            await rest.load_by_chat(key, ttl_seconds=ttl_seconds, seconds=self._load_seconds)
        except ServerGone:
            raise
        except ServerProblem as error:
            raise ModelLoadFailed(
                f'LM Studio did not load "{key}": {error}; load it in the app, or let its server load models '
                "just in time.",
                model=key,
            ) from error
        present = (await self.look(rest)).instances_of(key)
        if not present:
            raise ModelLoadFailed(
                f'LM Studio answered for "{key}" and does not have it in memory; load it in the app.',
                model=key,
            )
        return present[0]

    async def _unload(self, rest: Rest, instance_id: str) -> str:
        """Frees an instance where the server can; what came of it."""
        try:
            if (await rest.list()).api is Api.V1:
                await rest.unload(instance_id)
                await self.look(rest)
            else:
                _log.info("this LM Studio unloads in its own time", extra=fields(instance=instance_id))
        except ServerProblem as error:
            _log.warning("an instance was not unloaded", extra=fields(instance=instance_id, reason=error))
            return f"it was given up, and LM Studio did not unload it: {error}"
        self._own.pop(instance_id, None)
        return "it was unloaded"

    def _use(self, key: str, instance: ListedInstance) -> Use:
        held = self._held.setdefault(instance.id, _Held(key, instance, _now()))
        use = Use(key, instance)
        held.uses.append(use)
        return use

    def _end(self, instance_id: str, cause: str) -> None:
        held = self._held.pop(instance_id, None)
        for use in held.uses if held else ():
            use.end(cause)

    def _end_all(self, cause: str) -> None:
        for instance_id in tuple(self._held):
            self._end(instance_id, cause)

    def _lock(self, key: str) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())


def _now() -> float:
    return asyncio.get_running_loop().time()
