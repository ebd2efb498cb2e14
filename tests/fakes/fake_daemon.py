"""A daemon for the tests of its clients: the real wire on a real Unix socket, scripted answers.

It is as strict as the protos: what they forbid is refused with FIELD_INVALID, lists page by
``page_size``, a stream ends with Finished. Real inference is the end-to-end tests' business.
"""
# ruff: noqa: N802  # the methods have the names that the protos give them

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from autotune.v1 import (
    chat_pb2,
    daemon_service_pb2,
    daemon_service_pb2_grpc,
    engine_service_pb2,
    engine_service_pb2_grpc,
    inference_service_pb2,
    inference_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    plan_pb2,
    registry_service_pb2_grpc,
    system_service_pb2,
    system_service_pb2_grpc,
)
from autotune.version import __version__
from google.protobuf import duration_pb2
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.fakes.fake_downloads import FakeDownloads
from tests.fakes.fake_messages import (
    START_TIME,
    delta,
    engine,
    engine_unreachable,
    finished,
    listed_model,
    milliseconds,
    not_found,
    plan,
    queued,
    running_model,
    started,
)
from tests.fakes.refusing import abort, require

MAX_BYTES = 64 * 1024 * 1024

Script = Callable[
    [inference_service_pb2.GenerateRequest, grpc.ServicerContext],
    Iterator[inference_service_pb2.GenerateResponse],
]


def say(*pieces: str) -> Script:
    """A whole answer in these pieces."""

    def script(request, context):
        yield queued()
        yield started(request.model or "pocket")
        yield from map(delta, pieces)
        yield finished()

    return script


def fail_with(status: status_pb2.Status, *pieces: str) -> Script:
    """An answer that breaks off after ``pieces``."""

    def script(request, context):
        yield from map(delta, pieces)
        abort(context, status)

    return script


class FakeDaemon(
    FakeDownloads,
    inference_service_pb2_grpc.InferenceServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
    system_service_pb2_grpc.SystemServiceServicer,
    daemon_service_pb2_grpc.DaemonServiceServicer,
    engine_service_pb2_grpc.EngineServiceServicer,
    registry_service_pb2_grpc.RegistryServiceServicer,
):
    """``with FakeDaemon() as daemon``: serves ``daemon.address`` until the end of the block.

    Tests set the public attributes to say what it has and does; ``cancelled`` is set when a client
    gave up a call.
    """

    def __init__(self, runtime: Path | None = None) -> None:
        super().__init__()
        self.runtime = runtime or Path(tempfile.mkdtemp(prefix="at-fake-", dir="/tmp"))
        self.address = f"unix:{self.runtime / 'autotuned.sock'}"
        self.version = __version__
        self.process_id = 4242
        self.models: Sequence[model_pb2.Model] = [listed_model("pocket")]
        self.engines: Sequence[engine_service_pb2.Engine] = [engine("llamacpp")]
        self.findings: Sequence[engine_service_pb2.Finding] = []
        self.default_model = "pocket"
        self.running: Sequence[model_pb2.RunningModel] = []
        self.script: Script = say("The capital of France", " is Paris.")
        self.refusal: status_pb2.Status | None = None
        self.saved_prefixes_count = 3
        self.page_limit = 1000
        self.stalls = False
        self.requests: list[Any] = []
        self.prewarms: list[inference_service_pb2.PrewarmRequest] = []
        self.prewarming = threading.Semaphore(0)
        self.prewarm_holds = False
        self.plan = plan()
        self.pressure = plan_pb2.PRESSURE_TIER_NORMAL
        self.metadata: dict[str, str] = {}
        self.cancelled = threading.Event()
        self.release = threading.Event()
        self._server = grpc.server(
            ThreadPoolExecutor(16),
            options=(
                ("grpc.max_receive_message_length", MAX_BYTES),
                ("grpc.max_send_message_length", MAX_BYTES),
            ),
        )
        self.health = health.HealthServicer()
        self.health.set("", health_pb2.HealthCheckResponse.SERVING)

    def __enter__(self):
        inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(self, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        system_service_pb2_grpc.add_SystemServiceServicer_to_server(self, self._server)
        daemon_service_pb2_grpc.add_DaemonServiceServicer_to_server(self, self._server)
        engine_service_pb2_grpc.add_EngineServiceServicer_to_server(self, self._server)
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self._server.add_insecure_port(self.address)
        self._server.start()
        return self

    def __exit__(self, *_):
        self.release.set()
        self.stop()
        shutil.rmtree(self.runtime)

    def stop(self) -> None:
        """Breaks all connections and stops listening."""
        self._server.stop(None).wait(10)

    def _take(self, request, context) -> None:
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        if self.refusal is not None:
            abort(context, self.refusal)
        if self.stalls:
            self.hold(context)

    def _page(self, request, context, items):
        require(context, "page_size", 0 <= request.page_size <= 1000, "it must be 0 to 1,000.")
        first = int(request.page_token or 0)
        size = min(request.page_size or 100, self.page_limit)
        rest = first + size
        return items[first:rest], str(rest) if rest < len(items) else ""

    def _check_engine(self, name: str, context) -> None:
        known = [engine.name for engine in self.engines]
        problem = f'there is no engine "{name}"; use one of: {", ".join(sorted(known))}.'
        require(context, "engine", not name or name in known, problem)

    def _find(self, request, context) -> model_pb2.Model:
        """The model of a name or an alias, perhaps with its engine before it, as that engine would run it."""
        name, asked = request.model or self.default_model, request.engine
        self._check_engine(asked, context)
        exact = [model for model in self.models if model.id == name]
        if exact and not asked:
            return exact[0]
        before, slash, after = name.partition("/")
        if asked:
            name = name.removeprefix(f"{asked}/")
        elif slash and any(engine.name == before for engine in self.engines):
            name, asked = after, before
        for model in self.models:
            places = [place for place in model.places if place.engine == asked]
            if name in {model.id, *model.aliases} and (places or not asked):
                found = model_pb2.Model()
                found.CopyFrom(model)
                if places and places[0].engine != model.engine:
                    found.MergeFrom(model_pb2.Model(engine=asked, path=places[0].path))
                return found
        for each in self.engines:
            if each.name == asked and each.state != engine_service_pb2.ENGINE_STATE_READY:
                abort(context, engine_unreachable(asked))
        return abort(context, not_found(request.model or self.default_model))

    def Generate(self, request, context):
        self._take(request, context)
        self._check_engine(request.engine, context)
        require(context, "input", request.WhichOneof("input") is not None, "it is missing.")
        if request.HasField("chat"):
            require(context, "messages", len(request.chat.messages) > 0, "there must be one.")
            known = all(message.role != chat_pb2.ROLE_UNSPECIFIED for message in request.chat.messages)
            require(context, "role", known, "it is missing.")
        if request.sampling.HasField("temperature"):
            require(context, "temperature", 0 <= request.sampling.temperature <= 5, "it must be 0 to 5.")
        with self.noting_cancel():
            yield from self.script(request, context)

    @contextmanager
    def noting_cancel(self) -> Iterator[None]:
        """A call that is cancelled between two pieces ends there."""
        try:
            yield
        except GeneratorExit:
            self.cancelled.set()
            raise

    def hold(self, context: grpc.ServicerContext) -> None:
        """Waits until the client cancels or the test sets ``release``.

        It asks again and again, because gRPC's blocking server loses the callback of a call that is
        cancelled while the callback is being added.
        """
        while context.is_active():
            if self.release.wait(0.01):
                return
        self.cancelled.set()

    def Prewarm(self, request, context):
        """Kept apart from ``requests``: they come whenever a conversation begins."""
        self.prewarms.append(request)
        self._check_engine(request.engine, context)
        self.prewarming.release()
        if self.prewarm_holds:
            self.hold(context)
        return inference_service_pb2.PrewarmResponse(plan=self.plan, prompt_tokens=24, cached_tokens=8)

    def CountTokens(self, request, context):
        self._take(request, context)
        return inference_service_pb2.CountTokensResponse(tokens=len(request.text), accuracy=1)

    def Embed(self, request, context):
        self._take(request, context)
        embedding = inference_service_pb2.Embedding(values=[1.0, 0.0])
        return inference_service_pb2.EmbedResponse(embeddings=[embedding] * len(request.texts))

    def ListModels(self, request, context):
        self._take(request, context)
        page, token = self._page(request, context, self.models)
        return model_service_pb2.ListModelsResponse(
            models=page, next_page_token=token, default_model=self.default_model
        )

    def GetModel(self, request, context):
        self._take(request, context)
        return model_service_pb2.GetModelResponse(model=self._find(request, context))

    def ListRunningModels(self, request, context):
        self._take(request, context)
        page, token = self._page(request, context, self.running)
        return model_service_pb2.ListRunningModelsResponse(running_models=page, next_page_token=token)

    def LoadModel(self, request, context):
        self._take(request, context)
        model = self._find(request, context)
        for phase in (model_pb2.LOAD_PHASE_STARTING, model_pb2.LOAD_PHASE_READING_WEIGHTS):
            progress = model_pb2.LoadProgress(phase=phase, elapsed_duration=milliseconds(120))
            yield model_service_pb2.LoadModelResponse(progress=progress)
        running = running_model(model.id, model.engine)
        running.shape.CopyFrom(self.plan.shape)
        running.footprint.CopyFrom(self.plan.footprint)
        loaded = model_service_pb2.LoadedModel(running_model=running, plan=self.plan)
        yield model_service_pb2.LoadModelResponse(loaded=loaded)

    def UnloadModel(self, request, context):
        self._take(request, context)
        require(context, "model", bool(request.model), "it is missing.")
        found = self._find(request, context)
        asked = request.engine or ("" if request.model == found.id else found.engine)
        if any(model.id == found.id and asked in {"", model.engine} for model in self.running):
            return model_service_pb2.UnloadModelResponse(outcome=1, freed_memory_bytes=30 << 20)
        return model_service_pb2.UnloadModelResponse(outcome=2)

    def PlanModel(self, request, context):
        self._take(request, context)
        found = self._find(request, context)
        shapes = [
            model.shape for model in self.running if (model.id, model.engine) == (found.id, found.engine)
        ]
        return model_service_pb2.PlanModelResponse(
            model=found,
            plan=self.plan,
            loaded_shape=shapes[0] if shapes else None,
        )

    def DeletePrefixes(self, request, context):
        self._take(request, context)
        if self.saved_prefixes_count == 0:
            return model_service_pb2.DeletePrefixesResponse()
        return model_service_pb2.DeletePrefixesResponse(
            deleted_count=self.saved_prefixes_count, freed_bytes=self.saved_prefixes_count << 22
        )

    def ListEngines(self, request, context):
        self._take(request, context)
        return engine_service_pb2.ListEnginesResponse(engines=self.engines)

    def ListFindings(self, request, context):
        self._take(request, context)
        worst_first = sorted(self.findings, key=lambda finding: -finding.severity)
        return engine_service_pb2.ListFindingsResponse(findings=worst_first)

    def GetSnapshot(self, request, context):
        self._take(request, context)
        return system_service_pb2.GetSnapshotResponse(snapshot=self.snapshot())

    def WatchSnapshots(self, request, context):
        self._take(request, context)
        with self.noting_cancel():
            for sequence in (1, 2):
                yield system_service_pb2.WatchSnapshotsResponse(sequence=sequence, snapshot=self.snapshot())
            self.hold(context)

    def snapshot(self) -> system_service_pb2.Snapshot:
        return system_service_pb2.Snapshot(
            snapshot_time=START_TIME,
            cpu_used_ratio=0.25,
            cpu_cores_count=2,
            memory_total_bytes=8 << 30,
            memory_available_bytes=6 << 30,
            daemon_resident_memory_bytes=50 << 20,
            running_models=self.running,
            pressure_tier=self.pressure,
            saved_prefixes_count=self.saved_prefixes_count,
            saved_prefixes_bytes=self.saved_prefixes_count << 22,
        )

    def GetInfo(self, request, context):
        self._take(request, context)
        return daemon_service_pb2.GetInfoResponse(
            version=self.version,
            process_id=self.process_id,
            start_time=START_TIME,
            data_directory="/data",
            runtime_directory="/runtime",
            engines=[
                daemon_service_pb2.EngineInfo(name=engine.name, version=engine.version)
                for engine in self.engines
            ],
        )

    def Shutdown(self, request, context):
        self._take(request, context)
        self._server.stop(1.0)
        return daemon_service_pb2.ShutdownResponse(drain_duration=duration_pb2.Duration(seconds=5))
