"""RegistryService on the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
from autotune.v1 import registry_service_pb2, registry_service_pb2_grpc

from autotuned.rpc.paging import page

if TYPE_CHECKING:
    from autotuned.services.recommend import Recommender


class RegistryServicer(registry_service_pb2_grpc.RegistryServiceServicer):
    """Converts and forwards; the service decides. ``recommender`` builds it with the first question."""

    def __init__(self, *, recommender: Callable[[], Recommender]) -> None:
        self._recommender = recommender

    async def RecommendModels(  # noqa: N802 - the proto's name
        self, request: registry_service_pb2.RecommendModelsRequest, _context: grpc.aio.ServicerContext
    ) -> registry_service_pb2.RecommendModelsResponse:
        """See the proto."""
        from autotuned.rpc.hardware import advice_response, use_case  # noqa: PLC0415 - on demand, as the service

        return advice_response(await self._recommender().recommend(use_case(request.use_case)))

    async def ListRegistryModels(  # noqa: N802 - the proto's name
        self, request: registry_service_pb2.ListRegistryModelsRequest, _context: grpc.aio.ServicerContext
    ) -> registry_service_pb2.ListRegistryModelsResponse:
        """See the proto."""
        from autotuned.rpc.hardware import registry_model_message  # noqa: PLC0415 - as above

        recommender = self._recommender()
        registry = await recommender.registry()
        shown, token = page(registry.models, lambda model: model.id, request.page_size, request.page_token)
        return registry_service_pb2.ListRegistryModelsResponse(
            models=[registry_model_message(model) for model in shown],
            next_page_token=token,
            problems=registry.problems,
            own_file=recommender.own_file,
        )
