"""The asyncio client: one method for each call of the daemon, wire messages in and out.

The HTTP shim lives on it. Invariant: whatever goes wrong, callers meet ``autotune.errors`` and
``asyncio.CancelledError`` alone, and a stream that is closed early cancels its call.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc

from autotune.channel import (
    UNARY_DEADLINE_SECONDS,
    Metadata,
    client_metadata,
    open_aio_channel,
    program_metadata,
    resolved_address,
)
from autotune.chat import Conversation, Reply, ReplyBuilder, chat_request, prewarm_request
from autotune.errors import from_rpc_error
from autotune.requests import (
    PAGE_SIZE,
    ModelList,
    delete_model_request,
    delete_prefixes_request,
    get_model_request,
    plan_model_request,
    pull_model_request,
    resolve_pull_request,
    unload_model_request,
    watch_snapshots_request,
)
from autotune.v1 import (
    daemon_service_pb2,
    daemon_service_pb2_grpc,
    inference_service_pb2,
    inference_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    system_service_pb2,
    system_service_pb2_grpc,
)
from autotune.version import __version__

if TYPE_CHECKING:
    from autotune.registry import RegistryList
    from autotune.v1 import engine_service_pb2, registry_service_pb2

_Response = TypeVar("_Response")


class AsyncClient:
    """A connection to the daemon for one event loop. It connects on the first call and never starts a daemon.

    ``address``: ``unix:/path``; None takes AUTOTUNE_ADDRESS or the default. ``client_name`` and
    ``client_version`` say who asks: the daemon tells sessions of different programs apart by the name.
    ``deadline_seconds``: how long a short call may take. All methods raise ``autotune.errors``.
    """

    def __init__(
        self,
        address: str | None = None,
        client_name: str = "python",
        *,
        client_version: str = __version__,
        deadline_seconds: float = UNARY_DEADLINE_SECONDS,
    ) -> None:
        self.address = resolved_address(address)
        self._metadata = client_metadata(client_name, client_version)
        self._deadline_seconds = deadline_seconds
        self._channel = open_aio_channel(self.address)
        self._inference = inference_service_pb2_grpc.InferenceServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._system = system_service_pb2_grpc.SystemServiceStub(self._channel)
        self._daemon = daemon_service_pb2_grpc.DaemonServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and cancels what still runs on it."""
        await self._channel.close()

    def generate(
        self,
        request: inference_service_pb2.GenerateRequest,
        timeout_seconds: float | None = None,
        *,
        on_behalf_of: str = "",
    ) -> AsyncGenerator[inference_service_pb2.GenerateResponse, None]:
        """Yields Queued*, Started, Delta*, Finished. Close it (``aclosing``) to stop the answer.

        ``on_behalf_of``: the program that asks, where this client only passes its request on.
        """
        metadata = program_metadata(on_behalf_of) if on_behalf_of else self._metadata
        return self._stream(self._inference.Generate, request, timeout_seconds, metadata)

    async def chat(self, conversation: Conversation, model: str = "", **options: Any) -> Reply:
        """Answers a question or a list of messages; ``options`` are those of ``autotune.chat_request``."""
        builder = ReplyBuilder()
        async with aclosing(self.generate(chat_request(conversation, model=model, **options))) as events:
            async for event in events:
                builder.add(event)
        return builder.reply()

    async def prewarm(
        self, conversation: Conversation = (), model: str = "", **options: Any
    ) -> inference_service_pb2.PrewarmResponse:
        """Loads a model and computes the KV cache of what conversations begin with; generates nothing.

        ``options`` are those of ``autotune.chat.prewarm_request``. Has no deadline of its own.
        """
        request = prewarm_request(conversation, model=model, **options)
        return await self._unary(self._inference.Prewarm(request, metadata=self._metadata))

    async def count_tokens(
        self, request: inference_service_pb2.CountTokensRequest
    ) -> inference_service_pb2.CountTokensResponse:
        """Counts the tokens of a conversation or a text."""
        return await self._unary(self._inference.CountTokens(request, **self._short()))

    async def embed(self, request: inference_service_pb2.EmbedRequest) -> inference_service_pb2.EmbedResponse:
        """Turns texts into vectors. Has no deadline of its own."""
        return await self._unary(self._inference.Embed(request, metadata=self._metadata))

    async def list_models(self) -> ModelList:
        """All models, walking the pages, and the default one."""
        models: list[model_pb2.Model] = []
        request = model_service_pb2.ListModelsRequest(page_size=PAGE_SIZE)
        while True:
            page: model_service_pb2.ListModelsResponse = await self._unary(
                self._models.ListModels(request, **self._short())
            )
            models.extend(page.models)
            if not page.next_page_token:
                return ModelList(models, page.default_model)
            request.page_token = page.next_page_token

    async def get_model(self, model: str = "", engine: str = "") -> model_pb2.Model:
        """One model, as one engine would run it; "" is the default one, on the engine that would be taken."""
        response: model_service_pb2.GetModelResponse = await self._unary(
            self._models.GetModel(get_model_request(model, engine), **self._short())
        )
        return response.model

    async def list_running_models(self) -> list[model_pb2.RunningModel]:
        """The models in memory or on their way into it, walking the pages."""
        running: list[model_pb2.RunningModel] = []
        request = model_service_pb2.ListRunningModelsRequest(page_size=PAGE_SIZE)
        while True:
            page: model_service_pb2.ListRunningModelsResponse = await self._unary(
                self._models.ListRunningModels(request, **self._short())
            )
            running.extend(page.running_models)
            if not page.next_page_token:
                return running
            request.page_token = page.next_page_token

    def load_model(
        self, request: model_service_pb2.LoadModelRequest, timeout_seconds: float | None = None
    ) -> AsyncGenerator[model_service_pb2.LoadModelResponse, None]:
        """Yields progress, then ``loaded``. Closing the generator does not stop the load."""
        return self._stream(self._models.LoadModel, request, timeout_seconds, self._metadata)

    async def unload_model(
        self, model: str, timeout_seconds: float | None = None, *, engine: str = ""
    ) -> model_service_pb2.UnloadModelResponse:
        """Unloads a model once its running requests have ended; waits for them without a deadline.

        ``engine`` "" unloads it wherever it is in memory.
        """
        return await self._unary(
            self._models.UnloadModel(
                unload_model_request(model, engine), timeout=timeout_seconds, metadata=self._metadata
            )
        )

    async def plan_model(self, model: str = "", **options: Any) -> model_service_pb2.PlanModelResponse:
        """What would be decided for a request, and why; changes nothing.

        ``options`` are those of ``autotune.requests.plan_model_request``, for example ``prompt=5000``.
        """
        request = plan_model_request(model, **options)
        return await self._unary(self._models.PlanModel(request, **self._short()))

    def pull_model(
        self, model: str, engine: str = "", *, allow_too_large: bool = False
    ) -> AsyncGenerator[model_service_pb2.PullModelResponse, None]:
        """Downloads a model: yields an offer, progress, then ``pulled``.

        ``allow_too_large`` downloads it even if it does not fit into this machine. Closing the generator ends
        the download unless somebody else waits for it; what came stays, and the next pull goes on from there.
        """
        request = pull_model_request(model, engine, allow_too_large=allow_too_large)
        return self._stream(self._models.PullModel, request, None, self._metadata)

    async def delete_model(self, model: str, engine: str = "") -> model_service_pb2.DeleteModelResponse:
        """Deletes a model from the disk once it has left memory; waits for that without a deadline.

        ``engine`` "" deletes it wherever it is.
        """
        request = delete_model_request(model, engine)
        return await self._unary(self._models.DeleteModel(request, metadata=self._metadata))

    async def resolve_pull(self, model: str, engine: str = "") -> model_service_pb2.ResolvePullResponse:
        """What a name would be pulled from, without asking anybody."""
        request = resolve_pull_request(model, engine)
        return await self._unary(self._models.ResolvePull(request, **self._short()))

    async def recommend_models(self, use_case: str = "chat") -> registry_service_pb2.RecommendModelsResponse:
        """Which models suit this machine best: for "chat", "coding", "reasoning" or "agents".

        Has no deadline of its own: the daemon may measure the machine first.
        """
        from autotune.registry import recommend_models_request  # noqa: PLC0415  # few ask
        from autotune.v1 import registry_service_pb2_grpc  # noqa: PLC0415  # few ask

        stub = registry_service_pb2_grpc.RegistryServiceStub(self._channel)
        request = recommend_models_request(use_case)
        return await self._unary(stub.RecommendModels(request, metadata=self._metadata))

    async def list_registry_models(self) -> RegistryList:
        """The models that there are to download, walking the pages, and what is wrong with the own file."""
        from autotune.registry import RegistryList  # noqa: PLC0415  # few ask
        from autotune.v1 import registry_service_pb2, registry_service_pb2_grpc  # noqa: PLC0415  # few ask

        stub = registry_service_pb2_grpc.RegistryServiceStub(self._channel)
        models: list[registry_service_pb2.RegistryModel] = []
        request = registry_service_pb2.ListRegistryModelsRequest(page_size=PAGE_SIZE)
        while True:
            page: registry_service_pb2.ListRegistryModelsResponse = await self._unary(
                stub.ListRegistryModels(request, **self._short())
            )
            models.extend(page.models)
            if not page.next_page_token:
                return RegistryList(models, list(page.problems), page.own_file)
            request.page_token = page.next_page_token

    async def delete_prefixes(self, model: str = "") -> model_service_pb2.DeletePrefixesResponse:
        """Deletes the saved KV prefixes of one model, or of all. Has no deadline of its own."""
        request = delete_prefixes_request(model)
        return await self._unary(self._models.DeletePrefixes(request, metadata=self._metadata))

    async def list_engines(self) -> list[engine_service_pb2.Engine]:
        """The engines, as they stand now, in the order in which they are taken where nothing else decides."""
        from autotune.v1 import engine_service_pb2, engine_service_pb2_grpc  # noqa: PLC0415  # few ask

        stub = engine_service_pb2_grpc.EngineServiceStub(self._channel)
        response: engine_service_pb2.ListEnginesResponse = await self._unary(
            stub.ListEngines(engine_service_pb2.ListEnginesRequest(), **self._short())
        )
        return list(response.engines)

    async def list_findings(self) -> list[engine_service_pb2.Finding]:
        """What is wrong with daemon, engines, models and machine, and what to do about it, worst first."""
        from autotune.v1 import engine_service_pb2, engine_service_pb2_grpc  # noqa: PLC0415  # few ask

        stub = engine_service_pb2_grpc.EngineServiceStub(self._channel)
        response: engine_service_pb2.ListFindingsResponse = await self._unary(
            stub.ListFindings(engine_service_pb2.ListFindingsRequest(), **self._short())
        )
        return list(response.findings)

    async def hardware(self) -> system_service_pb2.GetHardwareResponse:
        """What the machine is made of, what models may take of it, and what closing applications would gain.

        Has no deadline of its own: the daemon may measure the machine first.
        """
        request = system_service_pb2.GetHardwareRequest()
        return await self._unary(self._system.GetHardware(request, metadata=self._metadata))

    async def snapshot(self) -> system_service_pb2.Snapshot:
        """How machine and daemon stand now."""
        request = system_service_pb2.GetSnapshotRequest()
        response: system_service_pb2.GetSnapshotResponse = await self._unary(
            self._system.GetSnapshot(request, **self._short())
        )
        return response.snapshot

    def watch_snapshots(
        self, interval_seconds: float = 1.0
    ) -> AsyncGenerator[system_service_pb2.WatchSnapshotsResponse, None]:
        """Yields snapshots and heartbeats until it is closed."""
        request = watch_snapshots_request(interval_seconds)
        return self._stream(self._system.WatchSnapshots, request, None, self._metadata)

    async def info(self) -> daemon_service_pb2.GetInfoResponse:
        """Version, process and paths of the daemon."""
        return await self._unary(self._daemon.GetInfo(daemon_service_pb2.GetInfoRequest(), **self._short()))

    async def shutdown(self) -> daemon_service_pb2.ShutdownResponse:
        """Asks the daemon to stop; returns before it has."""
        return await self._unary(self._daemon.Shutdown(daemon_service_pb2.ShutdownRequest(), **self._short()))

    def _short(self) -> dict[str, Any]:
        return {"timeout": self._deadline_seconds, "metadata": self._metadata}

    async def _unary(self, call: Awaitable[_Response]) -> _Response:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self.address) from None

    async def _stream(
        self, method: Any, request: object, timeout_seconds: float | None, metadata: Metadata
    ) -> AsyncGenerator[Any, None]:
        call = method(request, timeout=timeout_seconds, metadata=metadata)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self.address) from None
        finally:
            call.cancel()  # ends the call when the caller leaves early; nothing for one that has ended
