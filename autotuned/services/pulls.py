"""Downloads models: finds out what a name means, asks whether it fits, and lets everybody share one download.

Called by ``rpc.models``. Invariants: nothing is fetched that could never fit before somebody insists; a pull
that ends well has put a model into the list that can be asked at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from autotuned.core.download import Downloaded, Offer, Reference, Source
from autotuned.core.errors import ModelNotFound, ModelTooLarge, ShuttingDown
from autotuned.core.plan import Reason
from autotuned.core.ports import Clock, Downloader, Engine
from autotuned.core.registry import RegistryModel, RegistrySize
from autotuned.log import fields
from autotuned.policy.download_fit import Wanted, checked
from autotuned.policy.installed import is_of_repository
from autotuned.policy.mlx_names import resolved
from autotuned.policy.places import places_of
from autotuned.policy.recommend import pull_name_of
from autotuned.policy.references import is_same, parsed
from autotuned.policy.registry_facts import MLX, facts_of
from autotuned.policy.situation import ShapeDefaults
from autotuned.policy.use_cases import UseCase
from autotuned.services.catalogue import look_again
from autotuned.services.hardware import HardwareReports
from autotuned.services.models import Listing, Models
from autotuned.services.pull_ways import Way, chosen_way, offered_by, require_engine
from autotuned.services.recommend import Recommender
from autotuned.services.shared_pull import Progressed, SharedPull

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What would be downloaded, from where, and how it will fit."""

    offer: Offer
    source: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """It is here."""

    listing: Listing
    fetched_bytes: int


PullEvent = Offered | Progressed | Pulled


class Pulls:
    """All downloads of the daemon."""

    def __init__(
        self,
        *,
        downloader: Downloader,
        models: Models,
        reports: HardwareReports,
        recommender: Recommender,
        defaults: ShapeDefaults,
        clock: Clock,
    ) -> None:
        self._downloader = downloader
        self._models = models
        self._reports = reports
        self._recommender = recommender
        self._defaults = defaults
        self._clock = clock
        self._shared: dict[tuple[str, str], SharedPull] = {}
        self._stopping = False

    async def resolve(self, model: str, engine: str) -> tuple[tuple[Reference, ...], tuple[Reason, ...]]:
        """What a name would be pulled from, best first, and how that was found. Raises FieldInvalid."""
        registry = (await self._recommender.registry()).models
        reference = parsed(model, registry)
        if engine == MLX:
            return resolved(reference, registry)
        text = f'"{model.strip()}" is {reference.text} of {_place(reference)}.'
        return (reference,), (Reason("source", text),)

    async def pull(
        self, model: str, engine: str, *, allow_too_large: bool
    ) -> AsyncGenerator[PullEvent, None]:
        """Downloads it, and tells how it goes; ends with ``Pulled``. Closing it leaves the download.

        Raises FieldInvalid, ModelNotFound, ModelTooLarge, StorageFull, SourceUnreachable, SourceDenied,
        DownloadCorrupt, EngineUnreachable, Unsupported, ShuttingDown.
        """
        references, _ = await self.resolve(model, engine)
        if not references:
            raise ModelNotFound.elsewhere(
                model,
                f'No MLX repository is known for "{model}"; name one as in "hf:mlx-community/Qwen3-8B-4bit".',
            )
        await look_again(each for each in self._models.engines if _is_asked(each, engine))
        for index, reference in enumerate(references):
            self._refuse_when_stopping()
            way = chosen_way(reference, engine, self._models.engines, self._models.prefer)
            is_there = False
            try:
                async with aclosing(self._pull(way, allow_too_large=allow_too_large)) as events:
                    async for event in events:
                        is_there = True
                        yield event
            except ModelNotFound:
                if is_there or index == len(references) - 1:
                    raise
            else:
                return

    async def close(self) -> None:
        """Ends every download; what came stays."""
        self._stopping = True
        await asyncio.gather(*(shared.end() for shared in tuple(self._shared.values())))

    async def _pull(self, way: Way, *, allow_too_large: bool) -> AsyncGenerator[PullEvent, None]:
        shared = await self._shared_pull(way)
        with shared.following() as news:
            offer = await shared.offer()
            if offer is not None:
                require_engine(way, offer)
                offer = offered_by(way, offer)
                reasons = await self._fit(way.reference, offer, allow_too_large=allow_too_large)
                yield Offered(offer=offer, source=way.reference.text, reasons=reasons)
            shared.agree()
            async with aclosing(shared.progress(news)) as steps:
                async for step in steps:
                    yield step
            downloaded = await shared.result()
        _log.info(
            "pulled", extra=fields(model=downloaded.model_id, engine=downloaded.engine, source=way.key[0])
        )
        yield Pulled(
            listing=await self._listing(way.reference, downloaded), fetched_bytes=downloaded.fetched_bytes
        )

    async def _shared_pull(self, way: Way) -> SharedPull:
        """The download that runs, or a new one; one that is being cancelled has to be gone first."""
        while (shared := self._shared.get(way.key)) is not None:
            if not shared.is_over:
                return shared
            await shared.ended()
        self._refuse_when_stopping()
        shared = SharedPull(
            reference=way.reference,
            downloader=self._downloader,
            clock=self._clock,
            engine=way.engine,
            engine_name=way.engine_name,
        )
        self._shared[way.key] = shared
        shared.on_end(partial(self._shared.pop, way.key))
        return shared

    async def _fit(self, reference: Reference, offer: Offer, *, allow_too_large: bool) -> tuple[Reason, ...]:
        """How it will fit into memory. Raises ``ModelTooLarge``."""
        if not offer.missing_bytes:
            return ()  # it is here already
        room = await self._reports.room()
        runs_on = next((each for each in self._models.engines if each.name == offer.engine), None)
        budgets = places_of(room.budgets, runs_on.status()) if runs_on else room.budgets
        registry = (await self._recommender.registry()).models
        known = next((each for each in registry if _is_known(each, reference)), None)
        facts = None
        if known is not None:
            size = RegistrySize(
                of=MLX if offer.engine == MLX else known.sizes[0].of,
                quantization=offer.quantization,
                size_bytes=offer.weights_bytes,
            )
            facts = facts_of(known, size)
        wanted = Wanted(
            model_id=offer.model_id, weights_bytes=offer.weights_bytes, facts=facts, suggestion=""
        )
        try:
            return checked(wanted, budgets, self._defaults, room.memory, allow_too_large=allow_too_large)
        except ModelTooLarge:
            wanted = replace(wanted, suggestion=await self._suggestion())
            return checked(wanted, budgets, self._defaults, room.memory, allow_too_large=allow_too_large)

    async def _suggestion(self) -> str:
        """The name of a model that fits; "" where there is none."""
        advice = await self._recommender.recommend(UseCase.CHAT)
        return next((pick.pull_name for pick in advice.recommendations.picks), "")

    async def _listing(self, reference: Reference, downloaded: Downloaded) -> Listing:
        """The model in the list: files of one name may be several models, their folder tells which."""
        if reference.source is Source.HUGGING_FACE:
            for listing in await self._models.listings():
                for entry in listing.model.entries:
                    is_its = entry.engine == downloaded.engine and is_of_repository(entry, reference.name)
                    if is_its and entry.id.rpartition("/")[2] == downloaded.model_id.rpartition("/")[2]:
                        return listing
        try:
            return await self._models.get(downloaded.model_id, downloaded.engine)
        except ModelNotFound as error:
            raise ModelNotFound.elsewhere(
                downloaded.model_id,
                f'"{downloaded.model_id}" came, but {downloaded.engine} does not list it: it was deleted '
                "meanwhile, or does not generate text, as models for embeddings; choose another model.",
            ) from error

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise ShuttingDown


def _is_asked(engine: Engine, name: str) -> bool:
    """Whether it may be this engine's server that pulls."""
    return engine.capabilities().pulls and name in {"", engine.name}


def _place(reference: Reference) -> str:
    return "Hugging Face" if reference.source is Source.HUGGING_FACE else "a registry of Ollama's protocol"


def _is_known(model: RegistryModel, reference: Reference) -> bool:
    return any(
        is_same(pull_name_of(model, size) or f"hf:{model.names[size.of]}", reference) for size in model.sizes
    )
