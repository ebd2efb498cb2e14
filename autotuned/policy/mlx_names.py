"""The MLX repositories that a name of Ollama's stands for: what the registry says, a table, a rule.

``services.pulls`` asks for "--engine mlx" and "autotunectl mlx resolve". The repositories of mlx-community
are named like the originals on Hugging Face, with the quantization behind: ``mlx_families`` has how a family
is written there, the rule puts size, variant and quantization together.
Invariant: nobody is asked whether a repository exists; the likeliest name comes first, none twice, and what
is another model than the one that was named is not among them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from autotuned.core.download import Reference, Source
from autotuned.core.plan import Reason
from autotuned.core.registry import RegistryModel
from autotuned.policy.mlx_families import FAMILIES, FULL_SIZES, RENEWED, TAGS, USUAL_TAGS
from autotuned.policy.references import MLX_PUBLISHER, is_same, tagged
from autotuned.policy.registry_facts import MLX

DEFAULT_BITS = "4bit"
_QUANTIZATION = re.compile(
    r"(?:^|-)(?:i?q(?P<ggml>[2-8])(?:_[0-9a-z]+)*|(?P<bits>[2-8])bit|(?P<float>fp16|bf16|f16))$",
    re.IGNORECASE,
)
_SIZE = re.compile(r"(?:e?\d+(?:\.\d+)?[bm]|\d+x\d+b)(?:-a\d+(?:\.\d+)?b)?(?=-|$)", re.IGNORECASE)
# What a tag adds that is the usual one: "instruct", "it", either with the month of its release.
_USUAL_VARIANT = re.compile(r"(?:instruct|it)?(?:(?:^|-)(?P<month>\d{4}))?")


class _Tag(NamedTuple):
    """The parts of a tag, "" where it has none: "8b-instruct-q8_0" is "8b", "instruct" and "8bit"."""

    size: str
    variant: str
    bits: str

    @property
    def plain(self) -> str:
        return "-".join(filter(None, (self.size, self.variant)))


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
    family, _, text = rest.lower().partition(":")
    if path not in {"", "library"}:
        return ()
    tag = _parts(family, text)
    return tuple(
        dict.fromkeys(f"{MLX_PUBLISHER}/{_filled(pattern, tag)}" for pattern in _patterns(family, tag))
    )


def _parts(family: str, text: str) -> _Tag:
    usual = _split(USUAL_TAGS.get(family, ""))
    tag = _split("" if text == "latest" else text)
    tag = tag._replace(size=tag.size or usual.size, variant=tag.variant or (usual.variant * (not tag.size)))
    return tag._replace(size=FULL_SIZES.get(f"{family}:{tag.size}", tag.size))


def _split(text: str) -> _Tag:
    quantization = _QUANTIZATION.search(text)
    rest = text[: quantization.start()] if quantization else text
    size = _SIZE.match(rest)
    variant = rest[size.end() :].removeprefix("-") if size else rest
    return _Tag(size[0] if size else "", variant, _bits(quantization) if quantization else "")


def _bits(quantization: re.Match[str]) -> str:
    """As MLX calls it; 16 bits have a name of their own."""
    if quantization["float"]:
        return "bf16"
    return f"{quantization['ggml'] or quantization['bits']}bit"


def _patterns(family: str, tag: _Tag) -> tuple[str, ...]:
    """How the model is written; nothing for a variant that is not known to be the same model."""
    key = f"{family}:{tag.plain}"
    if not tag.bits and key in RENEWED:
        return RENEWED[key]
    if key in TAGS:
        return TAGS[key]
    if (own := FAMILIES.get(f"{family} {tag.variant}")) is not None:
        return own
    usual = _USUAL_VARIANT.fullmatch(tag.variant)
    if usual is None:
        return ()
    patterns = TAGS.get(f"{family}:{tag.size}") or FAMILIES.get(family, ())
    return tuple(
        pattern
        for pattern in patterns
        if (usual["month"] or "") in pattern and (tag.size or "size" not in pattern)
    )


def _filled(pattern: str, tag: _Tag) -> str:
    large = re.sub(
        r"(?<=\d)[bm](?=-|$)|(?<=-)a(?=\d)|^e(?=\d)", lambda match: match[0].upper(), tag.size.lower()
    )
    return pattern.format(size=large, small=tag.size.lower(), bits=tag.bits or DEFAULT_BITS)
