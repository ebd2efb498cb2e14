"""Model names as Ollama reads them: ``host/namespace/model:tag`` with defaults for all but the model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_MAX_PART_LENGTH = 80


@dataclass(frozen=True, slots=True)
class ModelName:
    """A full name."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def valid(self) -> bool:
        parts = (self.namespace, self.model, self.tag)
        return bool(_HOST.fullmatch(self.host)) and all(
            _PART.fullmatch(part) and len(part) <= _MAX_PART_LENGTH for part in parts
        )

    @property
    def full(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def shortest(self) -> str:
        if self.host.lower() != DEFAULT_HOST:
            return self.full
        namespace = "" if self.namespace.lower() == DEFAULT_NAMESPACE else f"{self.namespace}/"
        return f"{namespace}{self.model}:{self.tag}"

    @property
    def path(self) -> PurePosixPath:
        """Below the folder of manifests."""
        return PurePosixPath(self.host, self.namespace, self.model, self.tag)


def parse_name(text: str) -> ModelName:
    """Splits a name; whether it is one is ``valid``'s to say."""
    text, tag = text.strip(), "latest"
    if text.rfind(":") > text.rfind("/"):
        text, _, tag = text.rpartition(":")
    *above, model = text.rsplit("/", 2)
    namespace = above.pop() if above else DEFAULT_NAMESPACE
    host = above.pop().rpartition("://")[2] if above else DEFAULT_HOST
    return ModelName(host, namespace, model, tag)
