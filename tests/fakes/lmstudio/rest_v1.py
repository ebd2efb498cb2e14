"""``/api/v1``: lists, loads and unloads models."""

from __future__ import annotations

from typing import Any

from tests.fakes.lmstudio.inference import Inference
from tests.fakes.lmstudio.instances import LoadConfig, config_from
from tests.fakes.lmstudio.models import ModelFile
from tests.fakes.lmstudio.problems import rest_problem

Json = dict[str, Any]
LOAD_FIELDS = {
    "model": str,
    "context_length": int,
    "eval_batch_size": int,
    "flash_attention": bool,
    "num_experts": int,
    "offload_kv_cache_to_gpu": bool,
    "echo_load_config": bool,
}


def list_models(inference: Inference) -> Json:
    """``GET /api/v1/models``."""
    return {"models": [_describe(inference, model) for model in inference.models().values()]}


def _describe(inference: Inference, model: ModelFile) -> Json:
    return {
        "type": "llm",
        "publisher": model.publisher,
        "key": model.key,
        "display_name": model.display_name,
        "architecture": model.architecture,
        "quantization": {"name": model.quantization, "bits_per_weight": model.bits_per_weight},
        "size_bytes": model.size_bytes,
        "params_string": model.params_string,
        "loaded_instances": [
            {"id": instance.id, "config": instance.config.to_json()}
            for instance in inference.instances.of_model(model.key)
        ],
        "max_context_length": model.max_context_tokens,
        "format": "gguf",
        "capabilities": {"vision": False, "trained_for_tool_use": True},
        "description": None,
    }


async def load(inference: Inference, body: Json) -> Json:
    """``POST /api/v1/models/load``.

    Raises:
        Problem: a field is unknown or of another type, there is no such model, or it cannot be loaded.
    """
    check_fields(body, LOAD_FIELDS, required="model")
    model = inference.models().get(body["model"])
    if model is None:
        raise rest_problem(404, "model_not_found", f"Model '{body['model']}' not found", param="model")
    default = LoadConfig(
        context_length=min(inference.settings.context_tokens, model.max_context_tokens),
        parallel=inference.settings.slots_count,
    )
    instance = await inference.instances.load(model, config_from(body, default))
    told: Json = {
        "type": "llm",
        "instance_id": instance.id,
        "load_time_seconds": instance.load_seconds,
        "status": "loaded",
    }
    if body.get("echo_load_config"):
        told["load_config"] = instance.config.to_json()
    return told


async def unload(inference: Inference, body: Json) -> Json:
    """``POST /api/v1/models/unload``.

    Raises:
        Problem: a field is unknown, or there is no such instance.
    """
    check_fields(body, {"instance_id": str}, required="instance_id")
    instance = inference.instances.all.get(body["instance_id"])
    if instance is None:
        raise rest_problem(
            404, "model_not_found", f"No loaded model instance '{body['instance_id']}'", param="instance_id"
        )
    await inference.instances.unload(instance, "unloaded")
    return {"instance_id": instance.id}


def check_fields(body: Json, fields: dict[str, Any], *, required: str) -> None:
    """Refuses what the API does not know, instead of ignoring it.

    Raises:
        Problem: a field is absent, unknown or of another type.
    """
    if required not in body:
        raise rest_problem(
            400,
            "invalid_request",
            f'"{required}" is required',
            code="missing_required_parameter",
            param=required,
        )
    if unknown := [name for name in body if name not in fields]:
        names = ", ".join(f"'{name}'" for name in unknown)
        raise rest_problem(
            400, "invalid_request", f"Unrecognized key(s) in object: {names}", code="unrecognized_keys"
        )
    for name, value in body.items():
        kind = fields[name]
        # In JSON true is no number, in Python it is.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)):
            raise rest_problem(
                400, "invalid_request", f"Invalid type for '{name}'.", code="invalid_type", param=name
            )
