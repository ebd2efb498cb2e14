"""What planning needs to know of one of Ollama's models: from its file, or from what the server tells.

``catalog`` calls it once for each digest. The file is read where it lies on this machine, so that the model
has the digest that it has for every engine that runs the same file.
Invariant: what only Ollama knows (what its template can do, what it adds to each request) is taken from it.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotuned.core.errors import ModelInvalid
from autotuned.core.model import ModelFacts
from autotuned.engines.answers import MOST_COUNT
from autotuned.engines.gguf import KEPT_ELEMENTS, GgufHeader, Value, read_header
from autotuned.engines.gguf_facts.facts import model_facts
from autotuned.engines.gguf_types import TENSOR_TYPES
from autotuned.engines.ollama.client import Show, Tensor

COMPLETION = "completion"

_FROM = re.compile(r"^FROM (?P<path>.+)$", re.MULTILINE)
_ADAPTER = re.compile(r"^ADAPTER .+$", re.MULTILINE)
_BLOB = re.compile(r"sha256-([0-9a-f]{64})$")
_STOP = re.compile(r'^stop\s+"(?P<text>.*)"$', re.MULTILINE)
_TYPES = {name.lower(): (name, elements, size) for name, elements, size in TENSOR_TYPES.values()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A model of the server. ``runner_key`` is what models share that Ollama runs in one process.

    ``stop_sequences`` are its own: a request that has some replaces them.
    """

    name: str
    runner_key: str
    size_bytes: int
    facts: ModelFacts | None
    problem: str = ""
    stop_sequences: tuple[str, ...] = ()
    fills_in: bool = False

    @property
    def thinks(self) -> bool:
        """Whether it may be told to think."""
        return self.facts is not None and self.facts.thinks

    @property
    def sees(self) -> bool:
        """Whether it reads images."""
        return self.facts is not None and "image" in self.facts.modalities


def can_answer(show: Show) -> bool:
    """Whether it generates text, here: no embedding models, none that run elsewhere."""
    return not show.remote_host and (show.capabilities is None or COMPLETION in show.capabilities)


def blob_path(show: Show) -> str:
    """The file that the server has for it; "" where it does not say."""
    match = _FROM.search(show.modelfile)
    return match["path"].strip() if match else ""


def is_readable(path: str) -> bool:
    """Whether this process can read that file here."""
    return Path(path).is_absolute() and Path(path).is_file() and os.access(path, os.R_OK)


def stop_sequences(show: Show) -> tuple[str, ...]:
    """Those that its Modelfile sets."""
    return tuple(match["text"].replace('\\"', '"') for match in _STOP.finditer(show.parameters))


def facts_of_file(path: str, show: Show) -> ModelFacts:
    """From the header of its file. Blocks. Raises ``ModelInvalid``."""
    return _as_served(model_facts((read_header(Path(path)),), Path(path)), show)


def facts_of_answer(name: str, manifest_digest: str, show: Show) -> ModelFacts:
    """From a verbose answer alone. Raises ``ModelInvalid``."""
    header = _header(show)
    facts = model_facts((header,), Path(name))
    match = _BLOB.search(blob_path(show))
    return _as_served(replace(facts, digest=f"sha256:{match[1] if match else manifest_digest}"), show)


def _as_served(facts: ModelFacts, show: Show) -> ModelFacts:
    """With what its template can do, as Ollama sees it: it may use another one than the file's.

    With an adapter its weights are not those of the file, so they have another digest.
    """
    able = show.capabilities
    if adapters := _ADAPTER.findall(show.modelfile):
        named = "\n".join((facts.digest, *adapters))
        facts = replace(facts, digest=hashlib.sha256(named.encode()).hexdigest())
    if able is None:
        return replace(facts, chat_template=show.template or facts.chat_template)
    modalities = ("text", *(kind for kind, word in (("image", "vision"), ("audio", "audio")) if word in able))
    return replace(
        facts,
        chat_template=show.template or facts.chat_template,
        calls_tools="tools" in able,
        thinks="thinking" in able,
        modalities=modalities,
    )


def _header(show: Show) -> GgufHeader:
    """The header of a file, as far as the server tells it."""
    values: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    for key, value in (show.model_info or {}).items():
        if isinstance(value, bool | int | float | str):
            values[key] = value
        elif isinstance(value, list):
            lengths[key] = len(value)
            if len(value) <= KEPT_ELEMENTS and all(isinstance(each, int | float) for each in value):
                values[key] = tuple(value)
    sizes, parameters_count = _weights(show.tensors or [])
    told = (show.model_info or {}).get("general.parameter_count", 0)
    return GgufHeader(
        values=values,
        lengths=lengths,
        tensors_count=len(show.tensors or ()),
        parameters_count=parameters_count or _whole(told),
        weights_by_type=sizes,
        fingerprint=b"",
    )


def _weights(tensors: list[Tensor]) -> tuple[dict[str, int], int]:
    """Bytes of the tensors of each type, and all their elements. Raises ``ModelInvalid``."""
    sizes: dict[str, int] = {}
    elements_count = 0
    for tensor in tensors:
        known = _TYPES.get(tensor.type.lower())
        if known is None:
            raise ModelInvalid(f'Ollama names a tensor type "{tensor.type}" that is not known here.')
        name, block_elements, block_bytes = known
        elements = math.prod(tensor.shape)
        if min(tensor.shape, default=0) < 0 or elements > MOST_COUNT:
            raise ModelInvalid(f'Ollama tells of a tensor "{tensor.name}" of a size which no model has.')
        elements_count += elements
        sizes[name] = sizes.get(name, 0) + elements // block_elements * block_bytes
    return sizes, elements_count


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value <= MOST_COUNT else 0
