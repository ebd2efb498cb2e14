"""What a server says of its models, and by which words a program gives itself away.

``server`` reads the answer to ``GET /models`` with it, and what llama.cpp tells beside. Invariant: what a
server does not tell is 0 or "", however strange the rest of its answer is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from autotuned.core.model import ModelFacts
from autotuned.engines.answers import UNREADABLE
from autotuned.engines.openai.kinds import ServerKind

_OWNERS = {"llamacpp": ServerKind.LLAMACPP, "vllm": ServerKind.VLLM, "sglang": ServerKind.SGLANG}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A model of a server."""

    id: str
    context_tokens: int = 0
    size_bytes: int = 0
    parameters_count: int = 0
    vocabulary_size: int = 0
    embedding_length: int = 0
    architecture: str = ""
    quantization: str = ""
    chat_template: str = ""
    modalities: tuple[str, ...] = ("text",)

    def facts(self, engine: str) -> ModelFacts:
        """As far as they can be known from here: layers and their caches are none of ours."""
        return ModelFacts(
            digest=f"remote:{engine}:{self.id}",
            architecture=self.architecture,
            name=self.id,
            quantization=self.quantization,
            parameters_count=self.parameters_count,
            weights_bytes=self.size_bytes,
            weights_bytes_by_type=(),
            layers_count=0,
            embedding_length=self.embedding_length,
            vocabulary_size=self.vocabulary_size,
            layer_groups=(),
            train_context_tokens=self.context_tokens,
            chat_template=self.chat_template,
            # A server whose model cannot refuses the request itself.
            calls_tools=True,
            thinks=False,
            modalities=self.modalities,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """What llama.cpp tells of the one model that it has loaded; ``reads_images`` None: it does not tell."""

    context_tokens: int = 0
    slots_count: int = 0
    chat_template: str = ""
    build: str = ""
    reads_images: bool | None = None

    def applied_to(self, listed: Listed) -> Listed:
        """The model with what only its server knows."""
        return replace(
            listed,
            context_tokens=self.context_tokens or listed.context_tokens,
            chat_template=self.chat_template,
            modalities=("text", "image") if self.reads_images else ("text",),
        )


def read_list(body: bytes, server_header: str) -> tuple[ServerKind, list[Listed]]:
    """The program and its models. Raises ``ValueError`` for what is no list of models."""
    whole = _json(body)
    entries = whole.get("data") if isinstance(whole, dict) else whole
    if not isinstance(entries, list):
        raise ValueError("it is no list of models")  # noqa: TRY004 - the value is a server's, not a caller's
    known = [entry for entry in entries if isinstance(entry, dict) and _text(entry.get("id"))]
    return _kind(known, server_header), [_listed(entry) for entry in known]


def read_properties(body: bytes) -> Properties:
    """The answer to ``GET /props``. Raises ``ValueError`` for what is something else."""
    whole = _table(_json(body))
    vision = _table(whole.get("modalities")).get("vision")
    return Properties(
        context_tokens=_number(_table(whole.get("default_generation_settings")).get("n_ctx")),
        slots_count=_number(whole.get("total_slots")),
        chat_template=_text(whole.get("chat_template")),
        build=_text(whole.get("build_info")),
        reads_images=vision if isinstance(vision, bool) else None,
    )


def read_version(body: bytes) -> str:
    """The answer to ``GET /version``. Raises ``ValueError`` for what is something else."""
    return _text(_table(_json(body)).get("version"))


def _kind(entries: list[dict[str, Any]], server_header: str) -> ServerKind:
    if any(isinstance(entry.get("autotune"), dict) for entry in entries):
        return ServerKind.AUTOTUNE
    if server_header.startswith("llama.cpp"):
        return ServerKind.LLAMACPP
    owners = {entry.get("owned_by") for entry in entries}
    # Python's own server and entries of three words: nobody else answers like this.
    if server_header.startswith("BaseHTTP/") and owners <= {None}:
        return ServerKind.MLX_LM
    kinds = {_OWNERS.get(_text(owner), ServerKind.OTHER) for owner in owners}
    return kinds.pop() if len(kinds) == 1 else ServerKind.OTHER


def _listed(entry: Mapping[str, Any]) -> Listed:
    meta, own = _table(entry.get("meta")), _table(entry.get("autotune"))
    architecture = _table(entry.get("architecture"))
    modalities = architecture.get("input_modalities")
    read = [each for each in modalities if isinstance(each, str)] if isinstance(modalities, list) else []
    return Listed(
        id=_text(entry["id"]),
        context_tokens=_context(entry, meta, own),
        size_bytes=_number(meta.get("size")) or _number(own.get("size_bytes")),
        parameters_count=_number(meta.get("n_params")) or _number(own.get("parameters_count")),
        vocabulary_size=_number(meta.get("n_vocab")),
        embedding_length=_number(meta.get("n_embd")),
        architecture=_text(own.get("architecture")),
        quantization=_text(meta.get("ftype")) or _text(own.get("quantization")),
        modalities=tuple(read) or ("text",),
    )


def _context(entry: Mapping[str, Any], meta: Mapping[str, Any], own: Mapping[str, Any]) -> int:
    """The context that a request can have; a router's is that of whoever has most."""
    providers = entry.get("providers")
    of_providers = [
        _number(_table(each).get("context_length"))
        for each in (providers if isinstance(providers, list) else ())
    ]
    return (
        _number(entry.get("max_model_len"))
        or _number(meta.get("n_ctx"))
        or _number(entry.get("context_length"))
        or _number(entry.get("context_window"))
        or _number(own.get("train_context_tokens"))
        or _number(meta.get("n_ctx_train"))
        or max(of_providers, default=0)
    )


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except UNREADABLE as error:
        raise ValueError(f"it is no JSON: {error}") from error


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
