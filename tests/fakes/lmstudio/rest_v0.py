"""``/api/v0``: the older REST API, which says what is loaded but can load nothing."""

from __future__ import annotations

from typing import Any

from tests.fakes.lmstudio.inference import Inference
from tests.fakes.lmstudio.instances import Instance
from tests.fakes.lmstudio.models import ModelFile
from tests.fakes.lmstudio.problems import text_problem

Json = dict[str, Any]


def list_models(inference: Inference) -> Json:
    """``GET /api/v0/models``: every model on disk, and every instance beside the first of its model."""
    data = []
    for model in inference.models().values():
        instances = inference.instances.of_model(model.key)
        data.append(describe(model, model.key, instances[0] if instances else None))
        data += [describe(model, instance.id, instance) for instance in instances if instance.id != model.key]
    return {"object": "list", "data": data}


def get_model(inference: Inference, name: str) -> Json:
    """``GET /api/v0/models/{model}``.

    Raises:
        Problem: there is no such model.
    """
    for found in list_models(inference)["data"]:
        if found["id"] == name:
            return dict(found)
    raise text_problem(f"Model with identifier '{name}' not found", 404)


def describe(model: ModelFile, name: str, instance: Instance | None) -> Json:
    """One model."""
    told = {
        "id": name,
        "object": "model",
        "type": "llm",
        "publisher": model.publisher,
        "arch": model.architecture,
        "compatibility_type": "gguf",
        "quantization": model.quantization,
        "state": "not-loaded" if instance is None else "loaded",
        "max_context_length": model.max_context_tokens,
    }
    if instance is not None:
        told["loaded_context_length"] = instance.config.context_length
    return told
