"""ModelService on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import grpc
from autotune.v1 import model_pb2, model_service_pb2, model_service_pb2_grpc

from autotuned.core.errors import FieldInvalid
from autotuned.core.model import LoadProgress, RunningModel
from autotuned.rpc.fields import client_of, keep_alive_seconds, positive, profile_name, swap_policy
from autotuned.rpc.paging import page
from autotuned.rpc.plans import plan_message, reason_messages, shape_message
from autotuned.rpc.request import plan_request
from autotuned.rpc.response import load_progress, model_message, running_model_message
from autotuned.services.engines import Engines
from autotuned.services.inference import Inference
from autotuned.services.lease import Lease
from autotuned.services.models import Listing, Models
from autotuned.services.prefixes import Prefixes
from autotuned.services.removal import Removal
from autotuned.services.system import System

if TYPE_CHECKING:
    from autotuned.services.pulls import Pulls

_Outcome = model_service_pb2.UnloadModelResponse


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Converts and forwards; the service decides. ``pulls`` builds its service with the first question."""

    def __init__(
        self,
        *,
        models: Models,
        inference: Inference,
        prefixes: Prefixes,
        system: System,
        engines: Engines,
        pulls: Callable[[], Pulls],
        removal: Removal,
    ) -> None:
        self._pulls = pulls
        self._removal = removal
        self._engines = engines
        self._models = models
        self._inference = inference
        self._prefixes = prefixes
        self._system = system

    async def ListModels(  # noqa: N802 - the proto's name
        self, request: model_service_pb2.ListModelsRequest, _context: grpc.aio.ServicerContext
    ) -> model_service_pb2.ListModelsResponse:
        """See the proto."""
        shown, token = page(
            await self._models.listings(),
            lambda listing: listing.model.id,
            request.page_size,
            request.page_token,
        )
        return model_service_pb2.ListModelsResponse(
            models=[self._message(listing) for listing in shown],
            next_page_token=token,
            default_model=self._models.default_model,
        )

    async def GetModel(  # noqa: N802 - the proto's name
        self, request: model_service_pb2.GetModelRequest, _context: grpc.aio.ServicerContext
    ) -> model_service_pb2.GetModelResponse:
        """See the proto."""
        return model_service_pb2.GetModelResponse(
            model=self._message(await self._models.get(request.model, request.engine))
        )

    async def ListRunningModels(  # noqa: N802 - the proto's name
        self, request: model_service_pb2.ListRunningModelsRequest, _context: grpc.aio.ServicerContext
    ) -> model_service_pb2.ListRunningModelsResponse:
        """See the proto."""
        shown, token = page(
            _by_place([*self._system.running_models(), *await self._engines.foreign_models()]),
            lambda placed: placed[0],
            request.page_size,
            request.page_token,
        )
        return model_service_pb2.ListRunningModelsResponse(
            running_models=[running_model_message(model) for _, model in shown], next_page_token=token
        )

    async def LoadModel(  # noqa: N802 - the proto's name
        self, request: model_service_pb2.LoadModelRequest, _context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[model_service_pb2.LoadModelResponse, None]:
        """See the proto."""
        steps: asyncio.Queue[LoadProgress | None] = asyncio.Queue()
        load = asyncio.create_task(
            self._models.load(
                request.model,
                profile_name(request.profile),
                positive(request, "context_tokens"),
                swap_policy(request.swap_policy),
                keep_alive_seconds(request),
                steps.put_nowait,
                request.engine,
            )
        )
        load.add_done_callback(lambda _: steps.put_nowait(None))
        try:
            while (progress := await steps.get()) is not None:
                yield model_service_pb2.LoadModelResponse(progress=load_progress(progress))
            yield await self._loaded(load.result())
        finally:
            load.cancel()
            load.add_done_callback(_give_back)

    async def UnloadModel(  # noqa: N802 - the proto's name
        self, request: model_service_pb2.UnloadModelRequest, _context: grpc.aio.ServicerContext
    ) -> model_service_pb2.UnloadModelResponse:
        """See the proto."""
        if not request.model:
            raise FieldInvalid("model", "it is empty; name the model to unload.")
        unloaded, freed_bytes = await self._models.unload(request.model, request.engine)
        return model_service_pb2.UnloadModelResponse(
            outcome=_Outcome.OUTCOME_UNLOADED if unloaded else _Outcome.OUTCOME_NOT_LOADED,
            freed_memory_bytes=freed_bytes,
        )

    async def PlanModel(  # noqa: N802 - the proto's name
        self, request: model_service_pb2.PlanModelRequest, context: grpc.aio.ServicerContext
    ) -> model_service_pb2.PlanModelResponse:
        """See the proto."""
        generation, prompt_tokens = plan_request(request, client_of(context))
        listing, plan, loaded_shape = await self._inference.plan(generation, prompt_tokens)
        return model_service_pb2.PlanModelResponse(
            model=self._message(listing),
            plan=plan_message(plan),
            loaded_shape=shape_message(loaded_shape) if loaded_shape else None,
        )

    async def PullModel(  # noqa: N802 - the proto's name
        self, request: model_service_pb2.PullModelRequest, _context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[model_service_pb2.PullModelResponse, None]:
        """See the proto."""
        from autotuned.rpc.downloads import pull_response  # noqa: PLC0415 - on demand, as the service

        pull = self._pulls().pull(request.model, request.engine, allow_too_large=request.allow_too_large)
        async with aclosing(pull) as events:
            async for event in events:
                yield pull_response(event, self._message)

    async def DeleteModel(  # noqa: N802 - the proto's name
        self, request: model_service_pb2.DeleteModelRequest, _context: grpc.aio.ServicerContext
    ) -> model_service_pb2.DeleteModelResponse:
        """See the proto."""
        removed = await self._removal.delete(request.model, request.engine)
        return model_service_pb2.DeleteModelResponse(
            freed_bytes=removed.freed_bytes, paths=removed.paths, kept=reason_messages(removed.kept)
        )

    async def ResolvePull(  # noqa: N802 - the proto's name
        self, request: model_service_pb2.ResolvePullRequest, _context: grpc.aio.ServicerContext
    ) -> model_service_pb2.ResolvePullResponse:
        """See the proto."""
        references, reasons = await self._pulls().resolve(request.model, request.engine)
        return model_service_pb2.ResolvePullResponse(
            sources=[reference.text for reference in references], reasons=reason_messages(reasons)
        )

    async def DeletePrefixes(  # noqa: N802 - the proto's name
        self, request: model_service_pb2.DeletePrefixesRequest, _context: grpc.aio.ServicerContext
    ) -> model_service_pb2.DeletePrefixesResponse:
        """See the proto."""
        keys = await self._models.keys_of(request.model) if request.model else ()
        deleted_count, freed_bytes = await self._prefixes.delete(request.model, *keys)
        return model_service_pb2.DeletePrefixesResponse(deleted_count=deleted_count, freed_bytes=freed_bytes)

    def _message(self, listing: Listing) -> model_pb2.Model:
        return model_message(listing, self._models.fit_of(listing.entry))

    async def _loaded(self, lease: Lease) -> model_service_pb2.LoadModelResponse:
        """What was loaded, once this call uses it no more."""
        lease.release()
        running = self._system.running_model(await self._models.actor(lease.model_id))
        return model_service_pb2.LoadModelResponse(
            loaded=model_service_pb2.LoadedModel(
                running_model=running_model_message(running), plan=plan_message(lease.plan)
            )
        )


def _by_place(models: Sequence[RunningModel]) -> list[tuple[str, RunningModel]]:
    """Sorted, each with a text of its own: one id may run on several engines, and twice in one server."""
    counts: dict[tuple[str, str], int] = {}
    placed = []
    for model in models:
        place = (model.id, model.engine)
        counts[place] = counts.get(place, 0) + 1
        placed.append((f"{model.id}\n{model.engine}\n{counts[place]:04}", model))
    return sorted(placed, key=lambda each: each[0])


def _give_back(load: asyncio.Task[Lease]) -> None:
    """The call may have been cancelled in the moment in which the lease was granted."""
    if not load.cancelled() and load.exception() is None:
        load.result().release()
