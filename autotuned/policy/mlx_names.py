"""The MLX repositories that a name of Ollama's stands for: what the registry says, a table, a rule.

``services.pulls`` asks for "--engine mlx" and "autotunectl mlx resolve". The repositories of mlx-community
are named like the originals on Hugging Face, with the quantisation behind: the table has how a family is
written there, the rule puts size, variant and quantisation together.
Invariant: nobody is asked whether a repository exists; the likeliest name comes first, none twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from autotuned.core.download import Reference, Source
from autotuned.core.plan import Reason
from autotuned.core.registry import RegistryModel
from autotuned.policy.references import MLX_PUBLISHER, is_same, tagged
from autotuned.policy.registry_facts import MLX

DEFAULT_BITS = "4bit"
_BITS = re.compile(r"(?:^|-)(?:q|int)?(?P<bits>[234568])(?:bit|_k|_0|_1|$)", re.IGNORECASE)
_SIZE = re.compile(r"^e?\d+(?:\.\d+)?[bm](?:-a\d+(?:\.\d+)?b)?", re.IGNORECASE)

# How a family of Ollama's library is written on Hugging Face: {size} is "8B", {variant} "" or "-Instruct".
FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "qwen2.5": ("Qwen2.5-{size}-Instruct",),
        "qwen2.5-coder": ("Qwen2.5-Coder-{size}-Instruct",),
        "qwen3": ("Qwen3-{size}",),
        "qwen3-coder": ("Qwen3-Coder-{size}-Instruct",),
        "qwen3-next": ("Qwen3-Next-{size}-Instruct",),
        "qwen3-vl": ("Qwen3-VL-{size}-Instruct",),
        "qwen3.5": ("Qwen3.5-{size}",),
        "qwen3.6": ("Qwen3.6-{size}",),
        "qwq": ("QwQ-{size}",),
        "llama3": ("Meta-Llama-3-{size}-Instruct",),
        "llama3.1": ("Meta-Llama-3.1-{size}-Instruct", "Llama-3.1-{size}-Instruct"),
        "llama3.2": ("Llama-3.2-{size}-Instruct",),
        "llama3.3": ("Llama-3.3-{size}-Instruct",),
        "gemma2": ("gemma-2-{small}-it",),
        "gemma3": ("gemma-3-{small}-it",),
        "gemma3n": ("gemma-3n-{size}-it",),
        "gemma4": ("gemma-4-{small}-it",),
        "gpt-oss": ("gpt-oss-{small}",),
        "phi4": ("phi-4",),
        "phi4-mini": ("Phi-4-mini-instruct",),
        "phi4-reasoning": ("Phi-4-reasoning",),
        "mistral": ("Mistral-{size}-Instruct-v0.3",),
        "mistral-nemo": ("Mistral-Nemo-Instruct-2407",),
        "mistral-small3.2": ("Mistral-Small-3.2-{size}-Instruct-2506",),
        "deepseek-r1": ("DeepSeek-R1-Distill-{origin}-{size}",),
        "granite4": ("granite-4.0-h-{word}",),
        "smollm2": ("SmolLM2-{size}-Instruct",),
        "smollm3": ("SmolLM3-{size}",),
    }
)
# What the library's tag leaves out, where a family has one size under "latest".
USUAL_SIZES: Mapping[str, str] = MappingProxyType(
    {
        "mistral": "7b",
        "qwq": "32b",
        "llama3.3": "70b",
        "mistral-small3.2": "24b",
        "qwen3": "8b",
        "gemma3": "4b",
    }
)
_DISTILLED_FROM_LLAMA = ("8b", "70b")


def resolved(
    reference: Reference, registry: Sequence[RegistryModel]
) -> tuple[tuple[Reference, ...], tuple[Reason, ...]]:
    """The repositories to try in this order, and how they were found; none where no rule gives one.

    A repository of Hugging Face stands for itself.
    """
    if reference.source is Source.HUGGING_FACE:
        text = f'"{reference.name}" is a repository already.'
        return (reference,), (Reason("repository", text),)
    listed = [
        model.names[MLX]
        for model in registry
        if MLX in model.names
        and any(is_same(name, reference) for key, name in model.names.items() if key != MLX)
    ]
    ruled = _by_rule(reference.name)
    names = tuple(dict.fromkeys([*listed, *ruled]))
    return tuple(Reference(source=Source.HUGGING_FACE, name=name) for name in names), _why(listed, ruled)


def _why(listed: Sequence[str], ruled: Sequence[str]) -> tuple[Reason, ...]:
    found = []
    if listed:
        found.append(Reason("registry", f"The registry names {listed[0]}."))
    if ruled:
        found.append(Reason("rule", f"By the rule for names of {MLX_PUBLISHER} it is {' or '.join(ruled)}."))
    return tuple(found) or (Reason("unknown", "Neither the registry nor a rule knows it."),)


def _by_rule(name: str) -> tuple[str, ...]:
    path, _, rest = tagged(name).rpartition("/")
    family, _, tag = rest.lower().partition(":")
    if path not in {"", "library"}:
        return ()
    size_match = _SIZE.match(tag)
    size = size_match[0] if size_match else USUAL_SIZES.get(family, "")
    variant = tag[size_match.end() :] if size_match else tag
    bits = _bits(variant)
    patterns = FAMILIES.get(family, ())
    return tuple(
        f"{MLX_PUBLISHER}/{_filled(pattern, size, tag)}-{bits}"
        for pattern in patterns
        if size or "size" not in pattern
    )


def _filled(pattern: str, size: str, tag: str) -> str:
    large = re.sub(r"(?<=\d)[bm]|(?<=-)a(?=\d)|^e(?=\d)", lambda match: match[0].upper(), size)
    origin = "Llama" if size in _DISTILLED_FROM_LLAMA else "Qwen"
    word = tag.partition("-")[0]
    return pattern.format(size=large, small=size, origin=origin, word="tiny" if word == "latest" else word)


def _bits(variant: str) -> str:
    """The quantisation behind the size, "-q8_0" for example; 16 bits have a name of their own."""
    if re.search(r"(?:^|-)(?:fp16|bf16|f16)$", variant):
        return "bf16"
    match = _BITS.search(variant)
    return f"{match['bits']}bit" if match else DEFAULT_BITS
