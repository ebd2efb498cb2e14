"""The blocking client: one method for each call of the daemon, wire messages in and out.

The CLI and scripts live on it. Invariant: whatever goes wrong, callers meet ``autotune.errors``
alone, and a stream that is closed or left early cancels its call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from autotune.channel import UNARY_DEADLINE_SECONDS, client_metadata, open_channel, resolved_address
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
from autotune.stream import BackgroundCall, EventStream
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


class Client:
    """A connection to the daemon. It connects on the first call and never starts a daemon.

    ``address``: ``unix:/path``; None takes AUTOTUNE_ADDRESS or the default. ``client_name`` and
    ``client_version`` say who asks: the daemon tells sessions of different programs apart by the name.
    ``deadline_seconds``: how long a short call may take. All methods raise ``autotune.errors``; they may
    be called from several threads.
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
        self._channel = open_channel(self.address)
        self._inference = inference_service_pb2_grpc.InferenceServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._system = system_service_pb2_grpc.SystemServiceStub(self._channel)
        self._daemon = daemon_service_pb2_grpc.DaemonServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and cancels what still runs on it."""
        self._channel.close()

    def generate(
        self, request: inference_service_pb2.GenerateRequest, timeout_seconds: float | None = None
    ) -> EventStream[inference_service_pb2.GenerateResponse]:
        """Yields Queued*, Started, Delta*, Finished. Close the generator to stop the answer."""
        return self._stream(self._inference.Generate, request, timeout_seconds)

    def chat(self, conversation: Conversation, model: str = "", **options: Any) -> Reply:
        """Answers a question or a list of messages; ``options`` are those of ``autotune.chat_request``."""
        builder = ReplyBuilder()
        with closing(self.generate(chat_request(conversation, model=model, **options))) as events:
            for event in events:
                builder.add(event)
        return builder.reply()

    def prewarm(
        self, conversation: Conversation = (), model: str = "", **options: Any
    ) -> inference_service_pb2.PrewarmResponse:
        """Loads a model and computes the KV cache of what conversations begin with; generates nothing.

        ``options`` are those of ``autotune.chat.prewarm_request``. Has no deadline of its own.
        """
        request = prewarm_request(conversation, model=model, **options)
        response: inference_service_pb2.PrewarmResponse = self._unary(self._inference.Prewarm, request, None)
        return response

    def begin_prewarm(self, request: inference_service_pb2.PrewarmRequest) -> BackgroundCall:
        """Prewarms while the caller goes on. Cancel it to stop; how it ends is nobody's business."""
        return BackgroundCall(self._inference.Prewarm.future(request, metadata=self._metadata))

    def count_tokens(
        self, request: inference_service_pb2.CountTokensRequest
    ) -> inference_service_pb2.CountTokensResponse:
        """Counts the tokens of a conversation or a text."""
        response: inference_service_pb2.CountTokensResponse = self._short(
            self._inference.CountTokens, request
        )
        return response

    def embed(self, request: inference_service_pb2.EmbedRequest) -> inference_service_pb2.EmbedResponse:
        """Turns texts into vectors. Has no deadline of its own."""
        response: inference_service_pb2.EmbedResponse = self._unary(self._inference.Embed, request, None)
        return response

    def list_models(self) -> ModelList:
        """All models, walking the pages, and the default one."""
        models: list[model_pb2.Model] = []
        request = model_service_pb2.ListModelsRequest(page_size=PAGE_SIZE)
        while True:
            page: model_service_pb2.ListModelsResponse = self._short(self._models.ListModels, request)
            models.extend(page.models)
            if not page.next_page_token:
                return ModelList(models, page.default_model)
            request.page_token = page.next_page_token

    def get_model(self, model: str = "", engine: str = "") -> model_pb2.Model:
        """One model, as one engine would run it; "" is the default one, on the engine that would be taken."""
        response: model_service_pb2.GetModelResponse = self._short(
            self._models.GetModel, get_model_request(model, engine)
        )
        return response.model

    def list_running_models(self) -> list[model_pb2.RunningModel]:
        """The models in memory or on their way into it, walking the pages."""
        running: list[model_pb2.RunningModel] = []
        request = model_service_pb2.ListRunningModelsRequest(page_size=PAGE_SIZE)
        while True:
            page: model_service_pb2.ListRunningModelsResponse = self._short(
                self._models.ListRunningModels, request
            )
            running.extend(page.running_models)
            if not page.next_page_token:
                return running
            request.page_token = page.next_page_token

    def load_model(
        self, request: model_service_pb2.LoadModelRequest, timeout_seconds: float | None = None
    ) -> EventStream[model_service_pb2.LoadModelResponse]:
        """Yields progress, then ``loaded``. Closing the generator does not stop the load."""
        return self._stream(self._models.LoadModel, request, timeout_seconds)

    def unload_model(
        self, model: str, timeout_seconds: float | None = None, *, engine: str = ""
    ) -> model_service_pb2.UnloadModelResponse:
        """Unloads a model once its running requests have ended; waits for them without a deadline.

        ``engine`` "" unloads it wherever it is in memory.
        """
        response: model_service_pb2.UnloadModelResponse = self._unary(
            self._models.UnloadModel, unload_model_request(model, engine), timeout_seconds
        )
        return response

    def plan_model(self, model: str = "", **options: Any) -> model_service_pb2.PlanModelResponse:
        """What would be decided for a request, and why; changes nothing.

        ``options`` are those of ``autotune.requests.plan_model_request``, for example ``prompt=5000``.
        """
        response: model_service_pb2.PlanModelResponse = self._short(
            self._models.PlanModel, plan_model_request(model, **options)
        )
        return response

    def pull_model(
        self, model: str, engine: str = "", *, allow_too_large: bool = False
    ) -> EventStream[model_service_pb2.PullModelResponse]:
        """Downloads a model: yields an offer, progress, then ``pulled``.

        ``allow_too_large`` downloads it even if it does not fit into this machine. Closing the stream ends
        the download unless somebody else waits for it; what came stays, and the next pull goes on from there.
        """
        request = pull_model_request(model, engine, allow_too_large=allow_too_large)
        return self._stream(self._models.PullModel, request, None)

    def delete_model(self, model: str, engine: str = "") -> model_service_pb2.DeleteModelResponse:
        """Deletes a model from the disk once it has left memory; waits for that without a deadline.

        ``engine`` "" deletes it wherever it is.
        """
        response: model_service_pb2.DeleteModelResponse = self._unary(
            self._models.DeleteModel, delete_model_request(model, engine), None
        )
        return response

    def resolve_pull(self, model: str, engine: str = "") -> model_service_pb2.ResolvePullResponse:
        """What a name would be pulled from, without asking anybody."""
        response: model_service_pb2.ResolvePullResponse = self._short(
            self._models.ResolvePull, resolve_pull_request(model, engine)
        )
        return response

    def recommend_models(self, use_case: str = "chat") -> registry_service_pb2.RecommendModelsResponse:
        """Which models suit this machine best: for "chat", "coding", "reasoning" or "agents".

        Has no deadline of its own: the daemon may measure the machine first.
        """
        from autotune.registry import recommend_models_request  # noqa: PLC0415  # few ask
        from autotune.v1 import registry_service_pb2_grpc  # noqa: PLC0415  # few ask

        stub = registry_service_pb2_grpc.RegistryServiceStub(self._channel)
        request = recommend_models_request(use_case)
        response: registry_service_pb2.RecommendModelsResponse = self._unary(
            stub.RecommendModels, request, None
        )
        return response

    def list_registry_models(self) -> RegistryList:
        """The models that there are to download, walking the pages, and what is wrong with the own file."""
        from autotune.registry import RegistryList  # noqa: PLC0415  # few ask
        from autotune.v1 import registry_service_pb2, registry_service_pb2_grpc  # noqa: PLC0415  # few ask

        stub = registry_service_pb2_grpc.RegistryServiceStub(self._channel)
        models: list[registry_service_pb2.RegistryModel] = []
        request = registry_service_pb2.ListRegistryModelsRequest(page_size=PAGE_SIZE)
        while True:
            page: registry_service_pb2.ListRegistryModelsResponse = self._short(
                stub.ListRegistryModels, request
            )
            models.extend(page.models)
            if not page.next_page_token:
                return RegistryList(models, list(page.problems), page.own_file)
            request.page_token = page.next_page_token

    def delete_prefixes(self, model: str = "") -> model_service_pb2.DeletePrefixesResponse:
        """Deletes the saved KV prefixes of one model, or of all. Has no deadline of its own."""
        response: model_service_pb2.DeletePrefixesResponse = self._unary(
            self._models.DeletePrefixes, delete_prefixes_request(model), None
        )
        return response

    def list_engines(self) -> list[engine_service_pb2.Engine]:
        """The engines, as they stand now, in the order in which they are taken where nothing else decides."""
        from autotune.v1 import engine_service_pb2, engine_service_pb2_grpc  # noqa: PLC0415  # few ask

        stub = engine_service_pb2_grpc.EngineServiceStub(self._channel)
        request = engine_service_pb2.ListEnginesRequest()
        response: engine_service_pb2.ListEnginesResponse = self._short(stub.ListEngines, request)
        return list(response.engines)

    def list_findings(self) -> list[engine_service_pb2.Finding]:
        """What is wrong with daemon, engines, models and machine, and what to do about it, worst first."""
        from autotune.v1 import engine_service_pb2, engine_service_pb2_grpc  # noqa: PLC0415  # few ask

        stub = engine_service_pb2_grpc.EngineServiceStub(self._channel)
        request = engine_service_pb2.ListFindingsRequest()
        response: engine_service_pb2.ListFindingsResponse = self._short(stub.ListFindings, request)
        return list(response.findings)

    def hardware(self) -> system_service_pb2.GetHardwareResponse:
        """What the machine is made of, what models may take of it, and what closing applications would gain.

        Has no deadline of its own: the daemon may measure the machine first.
        """
        request = system_service_pb2.GetHardwareRequest()
        response: system_service_pb2.GetHardwareResponse = self._unary(
            self._system.GetHardware, request, None
        )
        return response

    def snapshot(self) -> system_service_pb2.Snapshot:
        """How machine and daemon stand now."""
        response: system_service_pb2.GetSnapshotResponse = self._short(
            self._system.GetSnapshot, system_service_pb2.GetSnapshotRequest()
        )
        return response.snapshot

    def watch_snapshots(
        self, interval_seconds: float = 1.0
    ) -> EventStream[system_service_pb2.WatchSnapshotsResponse]:
        """Yields snapshots and heartbeats until it is closed."""
        return self._stream(self._system.WatchSnapshots, watch_snapshots_request(interval_seconds), None)

    def info(self) -> daemon_service_pb2.GetInfoResponse:
        """Version, process and paths of the daemon."""
        response: daemon_service_pb2.GetInfoResponse = self._short(
            self._daemon.GetInfo, daemon_service_pb2.GetInfoRequest()
        )
        return response

    def shutdown(self) -> daemon_service_pb2.ShutdownResponse:
        """Asks the daemon to stop; returns before it has."""
        response: daemon_service_pb2.ShutdownResponse = self._short(
            self._daemon.Shutdown, daemon_service_pb2.ShutdownRequest()
        )
        return response

    def _short(self, method: Callable[..., Any], request: object) -> Any:
        return self._unary(method, request, self._deadline_seconds)

    def _unary(self, method: Callable[..., Any], request: object, timeout_seconds: float | None) -> Any:
        try:
            return method(request, timeout=timeout_seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from None

    def _stream(
        self, method: Callable[..., Any], request: object, timeout_seconds: float | None
    ) -> EventStream[Any]:
        return EventStream(
            lambda: method(request, timeout=timeout_seconds, metadata=self._metadata), self.address
        )
