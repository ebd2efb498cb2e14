"""What a person types to get a model, as a reference to where it is.

``services.pulls`` parses with it. Written are "qwen3:8b", "namespace/model:tag" and
"host/namespace/model:tag" of registries that speak Ollama's protocol, "hf:publisher/repository" with or
without ":Q4_K_M" of Hugging Face, both also as the address of their page, and ids of the registry.
Invariant: what comes out has a name of the right form; anything else is refused with an example.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from autotuned.core.download import Reference, Source
from autotuned.core.errors import FieldInvalid
from autotuned.core.registry import RegistryModel
from autotuned.policy.recommend import HUGGING_FACE, OLLAMA

FIELD = "model"
HUB_PREFIX = "hf:"
MLX_PUBLISHER = "mlx-community"
LONGEST_NAME = 300
_HUB_STARTS = (HUB_PREFIX, "hf.co/", "huggingface.co/")
_USUAL_HOST, _USUAL_NAMESPACE = "registry.ollama.ai/", "library/"
_OLLAMA_PAGES = ("ollama.com/library/", "ollama.com/")
# How no name of a registry begins: typed again it would mean something else.
_OF_OTHERS = (*_HUB_STARTS, f"{MLX_PUBLISHER}/", *_OLLAMA_PAGES)
# A page of a repository goes on with what of it is shown.
_HUB_PAGE_REST = re.compile(r"/(tree|blob|resolve)/.*$")
# As the library of Hugging Face checks it: no dash or dot at an end of a part, no two of them together.
_REPOSITORY = re.compile(r"(?!.*(?:--|\.\.))\b[\w.-]{1,96}\b/\b[\w.-]{1,96}\b(?<!\.git)", re.ASCII)
_QUANTIZATION = re.compile(r"[\w-][\w./-]{0,199}", re.ASCII)
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}"
_HOST = r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}(?::[0-9]{1,5})?"
_REGISTRY_NAME = re.compile(rf"(?:(?:{_HOST}/)?{_PART}/)?{_PART}(?::{_PART})?")


def parsed(text: str, registry: Sequence[RegistryModel] = ()) -> Reference:
    """The reference that ``text`` means. Raises ``FieldInvalid``."""
    wanted = text.strip()
    if not wanted:
        raise FieldInvalid(FIELD, 'it is empty; name the model to pull, as in "qwen3:8b".')
    if len(wanted) > LONGEST_NAME:
        raise FieldInvalid(FIELD, f"it is longer than {LONGEST_NAME} characters; no model is called so.")
    known = next((model for model in registry if model.id == wanted), None)
    if known is not None:
        return reference_of(known)
    page = wanted.removeprefix("https://").removeprefix("http://")
    for start in _HUB_STARTS:
        if page.startswith(start):
            return _of_hub(page.removeprefix(start), wanted)
    if page.startswith(f"{MLX_PUBLISHER}/"):
        return _of_hub(page, wanted)
    for start in _OLLAMA_PAGES:
        if page.startswith(start):
            return _of_registry(page.removeprefix(start))
    return _of_registry(wanted)


def reference_of(model: RegistryModel) -> Reference:
    """Where a model of the registry comes from first."""
    if name := model.names.get(OLLAMA):
        return _of_registry(name)
    name = model.names.get(HUGGING_FACE) or next(iter(model.names.values()), "")
    return _of_hub(name, model.id)


def is_same(name: str, reference: Reference) -> bool:
    """Whether a name of the registry's means this reference; no tag is ":latest", quantizations are alike."""
    try:
        other = parsed(name)
    except FieldInvalid:
        return False
    if other.source is not reference.source:
        return False
    if other.source is Source.HUGGING_FACE:
        return other.name.lower() == reference.name.lower()
    return shortest(other.name) == shortest(reference.name)


def tagged(name: str) -> str:
    """The name of a registry with its tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def shortest(name: str) -> str:
    """The name of a registry with its tag, and without what is usual before it: one for each model."""
    return tagged(name).removeprefix(_USUAL_HOST).removeprefix(_USUAL_NAMESPACE)


def _of_hub(text: str, typed: str) -> Reference:
    name, _, quantization = _HUB_PAGE_REST.sub("", text.rstrip("/")).partition(":")
    if not _REPOSITORY.fullmatch(name):
        raise FieldInvalid(
            FIELD,
            f'"{typed}" names no repository; write it as in "hf:Qwen/Qwen3-8B-GGUF" or '
            '"hf:Qwen/Qwen3-8B-GGUF:Q4_K_M".',
        )
    if quantization and not _QUANTIZATION.fullmatch(quantization):
        raise FieldInvalid(FIELD, f'"{quantization}" is no quantisation; write it as in "hf:{name}:Q4_K_M".')
    return Reference(source=Source.HUGGING_FACE, name=name, quantization=quantization)


def _of_registry(text: str) -> Reference:
    name = text.removeprefix("https://").removeprefix("http://")
    if name != text and name.count("/") != 2:  # noqa: PLR2004 - an address has a host, a namespace and a model
        name = text
    if not _REGISTRY_NAME.fullmatch(name) or name.startswith(_OF_OTHERS):
        raise FieldInvalid(
            FIELD,
            f'"{text}" is no name of a model; write it as in "qwen3:8b", "host/namespace/model:tag" or '
            '"hf:publisher/repository".',
        )
    return Reference(source=Source.OLLAMA_REGISTRY, name=name)
