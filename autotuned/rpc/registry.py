"""RegistryService on the wire."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from autotune.v1 import registry_service_pb2, registry_service_pb2_grpc

from autotuned.policy.use_cases import UseCase
from autotuned.rpc.fields import known
from autotuned.rpc.hardware import budget_messages, recommendation_message, registry_model_message
from autotuned.rpc.paging import page
from autotuned.rpc.plans import reason_messages
from autotuned.services.recommend import Recommender

_USE_CASES: Mapping[int, UseCase] = {
    registry_service_pb2.USE_CASE_UNSPECIFIED: UseCase.CHAT,
    registry_service_pb2.USE_CASE_CHAT: UseCase.CHAT,
    registry_service_pb2.USE_CASE_CODING: UseCase.CODING,
    registry_service_pb2.USE_CASE_REASONING: UseCase.REASONING,
    registry_service_pb2.USE_CASE_AGENTS: UseCase.AGENTS,
}


class RegistryServicer(registry_service_pb2_grpc.RegistryServiceServicer):
    """Converts and forwards; the service decides."""

    def __init__(self, *, recommender: Recommender) -> None:
        self._recommender = recommender

    async def RecommendModels(  # noqa: N802 - the proto's name
        self, request: registry_service_pb2.RecommendModelsRequest, _context: grpc.aio.ServicerContext
    ) -> registry_service_pb2.RecommendModelsResponse:
        """See the proto."""
        advice = await self._recommender.recommend(known("use_case", _USE_CASES, request.use_case))
        return registry_service_pb2.RecommendModelsResponse(
            recommendations=[recommendation_message(pick) for pick in advice.recommendations.picks],
            budgets=budget_messages(advice.budgets),
            reasons=reason_messages(advice.recommendations.reasons),
        )

    async def ListRegistryModels(  # noqa: N802 - the proto's name
        self, request: registry_service_pb2.ListRegistryModelsRequest, _context: grpc.aio.ServicerContext
    ) -> registry_service_pb2.ListRegistryModelsResponse:
        """See the proto."""
        registry = await self._recommender.registry()
        shown, token = page(registry.models, lambda model: model.id, request.page_size, request.page_token)
        return registry_service_pb2.ListRegistryModelsResponse(
            models=[registry_model_message(model) for model in shown],
            next_page_token=token,
            problems=registry.problems,
            own_file=self._recommender.own_file,
        )
