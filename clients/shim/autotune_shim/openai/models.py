"""The models of the daemon, as OpenAI lists them."""

from __future__ import annotations

from typing import Any

from autotune.v1 import model_pb2, plan_pb2


def model_list(models: list[model_pb2.Model], default_model: str) -> dict[str, Any]:
    """GET /v1/models. The extra ``autotune`` object names the model of a request without one."""
    return {
        "object": "list",
        "data": [model_object(model) for model in models],
        "autotune": {"default_model": default_model},
    }


def model_object(model: model_pb2.Model) -> dict[str, Any]:
    """GET /v1/models/{id}. ``created`` is 0: nobody knows when a model file was made."""
    return {
        "id": model.id,
        "object": "model",
        "created": 0,
        "owned_by": model.engine,
        "autotune": {
            "engine": model.engine,
            "engines": _engines(model),
            "aliases": list(model.aliases),
            "architecture": model.architecture,
            "quantization": model.quantization,
            "parameters_count": model.parameters_count,
            "size_bytes": model.size_bytes,
            "train_context_tokens": model.train_context_tokens,
            "state": model_pb2.ModelState.Name(model.state).removeprefix("MODEL_STATE_").lower(),
            "problem": model.problem or None,
            "fit": _fit(model),
        },
    }


def _engines(model: model_pb2.Model) -> list[str]:
    """Every engine that can run it, the one that would be taken first; a request may name it: "engine/id"."""
    if model.problem:
        return []
    others = (place.engine for place in model.places if not place.problem)
    return list(dict.fromkeys((model.engine, *others)))


def _fit(model: model_pb2.Model) -> dict[str, Any] | None:
    """How it would fit into memory now; null for a model that cannot be used, and for one elsewhere."""
    if not model.HasField("fit"):
        return None
    return {
        "class": plan_pb2.FitClass.Name(model.fit.fit_class).removeprefix("FIT_CLASS_").lower(),
        "required_bytes": model.fit.required_bytes,
        "available_bytes": model.fit.available_bytes,
        "safe_context_tokens": model.fit.safe_context_tokens,
    }
