"""``/v1``: the endpoints of OpenAI's dialect that are no completions."""

from __future__ import annotations

from typing import Any

from tests.fakes.lmstudio.inference import Inference
from tests.fakes.lmstudio.problems import Problem, openai_problem, text_problem

Json = dict[str, Any]


def list_models(inference: Inference) -> Json:
    """``GET /v1/models``: what can be asked, which without JIT loading is what is loaded."""
    names = list(inference.instances.all)
    if inference.settings.jit_loading:
        names += [key for key in inference.models() if key not in names]
    return {
        "data": [{"id": name, "object": "model", "owned_by": "organization_owner"} for name in names],
        "object": "list",
    }


def get_model(inference: Inference, name: str) -> Json:
    """``GET /v1/models/{model}``.

    Raises:
        Problem: there is no such model.
    """
    for found in list_models(inference)["data"]:
        if found["id"] == name:
            return dict(found)
    raise text_problem(f"Model with identifier '{name}' not found", 404)


def no_embeddings(inference: Inference, name: Any) -> Problem:
    """The models here are for chats."""
    return openai_problem(
        404,
        f'Model "{name}" is not an embedding model. Your models: {", ".join(inference.models())}',
        code="model_not_found",
        param="model",
    )
