"""The part of the fake daemon that downloads, deletes and recommends models, and tells the hardware.

As strict as the daemon: names are required, an engine that downloads must be there, a use case known; a pull
is an offer, progress and ``pulled``, and a model that is too large needs consent.
"""
# ruff: noqa: N802  # the methods have the names that the protos give them

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
from autotune.v1 import (
    hardware_pb2,
    model_pb2,
    model_service_pb2,
    plan_pb2,
    registry_service_pb2,
    system_service_pb2,
)

from tests.fakes.download_messages import (
    machine,
    offer,
    progress,
    pulled,
    reason,
    recommendation,
    registry_model,
)
from tests.fakes.fake_messages import not_found, rich_status
from tests.fakes.refusing import abort, require

PullScript = Callable[
    [model_service_pb2.PullModelRequest, grpc.ServicerContext],
    Iterator[model_service_pb2.PullModelResponse],
]

GIB = 1 << 30
MLX = "mlx"
OWN_ENGINES = frozenset({"llamacpp", MLX})
"""What they run is downloaded whether they are there or not."""


def pull_all(request, context) -> Iterator[model_service_pb2.PullModelResponse]:
    """A download without accidents."""
    yield progress(model_service_pb2.PULL_PHASE_RESOLVING)
    yield offer(request.model, request.engine or "ollama")
    for done in (1, 2, 4):
        yield progress(model_service_pb2.PULL_PHASE_DOWNLOADING, done * GIB, 4 * GIB)
    yield progress(model_service_pb2.PULL_PHASE_VERIFYING, 4 * GIB, 4 * GIB)
    yield pulled(request.model, request.engine or "ollama")


class FakeDownloads:
    """Mixed into ``FakeDaemon``, whose helpers it uses."""

    _take: Callable[..., None]
    _page: Callable[..., tuple[Sequence[Any], str]]
    _find: Callable[..., model_pb2.Model]
    _check_engine: Callable[..., None]
    noting_cancel: Callable[..., Any]

    def __init__(self) -> None:
        self.pull_script: PullScript = pull_all
        self.too_large: set[str] = set()
        self.kept: Sequence[plan_pb2.PlanReason] = []
        self.sources: Sequence[str] = ["hf:mlx-community/Qwen3-8B-4bit"]
        self.recommendations: Sequence[registry_service_pb2.Recommendation] = [recommendation()]
        self.recommend_reasons = [reason("machine", "RAM gives 41 GB/s, as was measured.")]
        self.registry: Sequence[registry_service_pb2.RegistryModel] = [registry_model()]
        self.registry_problems: Sequence[str] = []
        self.hardware: system_service_pb2.GetHardwareResponse = machine()

    def PullModel(self, request, context):
        self._take(request, context)
        require(context, "model", bool(request.model), "it is missing.")
        if request.engine not in OWN_ENGINES:
            self._check_engine(request.engine, context)
        if request.engine == MLX and not self.sources:
            abort(context, not_found(request.model))
        if request.model in self.too_large and not request.allow_too_large:
            abort(
                context,
                rich_status(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "MODEL_TOO_LARGE",
                    f'"{request.model}" will not fit: it would take about 40.0 GiB, by its size alone, '
                    'and a model may take 16.0 GiB of RAM here; "qwen3:4b" fits.',
                    requiredBytes=str(40 * GIB),
                    capacityBytes=str(16 * GIB),
                    suggestion="qwen3:4b",
                ),
            )
        with self.noting_cancel():
            yield from self.pull_script(request, context)

    def DeleteModel(self, request, context):
        self._take(request, context)
        require(context, "model", bool(request.model), "it is missing.")
        found = self._find(request, context)
        paths = [place.path for place in found.places if request.engine in {"", place.engine}]
        return model_service_pb2.DeleteModelResponse(
            freed_bytes=found.size_bytes, paths=paths, kept=self.kept
        )

    def ResolvePull(self, request, context):
        self._take(request, context)
        require(context, "model", bool(request.model), "it is missing.")
        return model_service_pb2.ResolvePullResponse(
            sources=self.sources,
            reasons=[reason("registry", f"The registry has {request.model} under this name.")],
        )

    def RecommendModels(self, request, context):
        self._take(request, context)
        known = request.use_case in registry_service_pb2.UseCase.values()
        require(context, "use_case", known, "it is not known.")
        return registry_service_pb2.RecommendModelsResponse(
            recommendations=self.recommendations,
            budgets=[hardware_pb2.MemoryBudget(name="RAM", capacity_bytes=16 * GIB)],
            reasons=self.recommend_reasons,
        )

    def ListRegistryModels(self, request, context):
        self._take(request, context)
        page, token = self._page(request, context, self.registry)
        return registry_service_pb2.ListRegistryModelsResponse(
            models=page,
            next_page_token=token,
            problems=self.registry_problems,
            own_file="/config/registry.toml",
        )

    def GetHardware(self, request, context):
        self._take(request, context)
        return self.hardware
