"""What both clients send and return of the registry of downloadable models. Pure.

Both import it when they are asked for it, because few ask and its messages take time and memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from autotune.errors import FieldInvalid
from autotune.v1 import registry_service_pb2

USE_CASES = {
    "chat": registry_service_pb2.USE_CASE_CHAT,
    "coding": registry_service_pb2.USE_CASE_CODING,
    "reasoning": registry_service_pb2.USE_CASE_REASONING,
    "agents": registry_service_pb2.USE_CASE_AGENTS,
}


@dataclass(frozen=True, slots=True)
class RegistryList:
    """The models that there are to download, by id.

    ``problems``: what of the user's own file was left out and why, a sentence each; ``own_file``: where that
    file is looked for.
    """

    models: list[registry_service_pb2.RegistryModel]
    problems: list[str]
    own_file: str


def recommend_models_request(use_case: str) -> registry_service_pb2.RecommendModelsRequest:
    """Asks for models that are good at something, "" for chat. Raises FieldInvalid for an unknown use."""
    if use_case and use_case not in USE_CASES:
        raise FieldInvalid(
            f'use_case: "{use_case}" is not one of {", ".join(USE_CASES)}.', metadata={"field": "use_case"}
        )
    wire_use_case = USE_CASES.get(use_case, registry_service_pb2.USE_CASE_UNSPECIFIED)
    return registry_service_pb2.RecommendModelsRequest(use_case=wire_use_case)
