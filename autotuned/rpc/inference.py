"""InferenceService on the wire."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
from autotune.v1 import inference_service_pb2, inference_service_pb2_grpc

from autotuned.core.errors import FieldInvalid, Unsupported
from autotuned.rpc.chat import chat_input
from autotuned.rpc.fields import client_of
from autotuned.rpc.request import generation_request, prewarm_request
from autotuned.rpc.response import generate_response, prewarm_response
from autotuned.services.inference import Inference
from autotuned.services.models import Models

_Accuracy = inference_service_pb2.CountTokensResponse


class InferenceServicer(inference_service_pb2_grpc.InferenceServiceServicer):
    """Converts and forwards; the service decides."""

    def __init__(self, *, inference: Inference, models: Models) -> None:
        self._inference = inference
        self._models = models

    async def Generate(  # noqa: N802 - the proto's name
        self, request: inference_service_pb2.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[inference_service_pb2.GenerateResponse, None]:
        """See the proto."""
        generation = generation_request(request, client_of(context))
        async with aclosing(self._inference.generate(generation)) as events:
            async for event in events:
                yield generate_response(event)

    async def Prewarm(  # noqa: N802 - the proto's name
        self, request: inference_service_pb2.PrewarmRequest, context: grpc.aio.ServicerContext
    ) -> inference_service_pb2.PrewarmResponse:
        """See the proto."""
        generation = prewarm_request(request, client_of(context))
        return prewarm_response(await self._inference.prewarm(generation))

    async def CountTokens(  # noqa: N802 - the proto's name
        self, request: inference_service_pb2.CountTokensRequest, _context: grpc.aio.ServicerContext
    ) -> inference_service_pb2.CountTokensResponse:
        """See the proto."""
        match request.WhichOneof("input"):
            case "chat":
                tokens, exact = await self._inference.count_tokens(request.model, chat_input(request.chat))
            case "text":
                tokens, exact = await self._inference.count_tokens(request.model, request.text)
            case _:
                raise FieldInvalid("input", "it is missing; set chat or text.")
        accuracy = _Accuracy.ACCURACY_EXACT if exact else _Accuracy.ACCURACY_ESTIMATED
        return inference_service_pb2.CountTokensResponse(tokens=tokens, accuracy=accuracy)

    async def Embed(  # noqa: N802 - the proto's name
        self, request: inference_service_pb2.EmbedRequest, _context: grpc.aio.ServicerContext
    ) -> inference_service_pb2.EmbedResponse:
        """See the proto."""
        if not request.texts:
            raise FieldInvalid("texts", "the list is empty; send at least one text.")
        listing = await self._models.get(request.model)
        raise Unsupported(
            f'"{listing.entry.id}" is a chat model, and embeddings are not supported yet; '
            "use another program for embeddings.",
            model=listing.entry.id,
        )
