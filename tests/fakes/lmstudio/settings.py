"""What a user of LM Studio sets in its window, as far as the double knows it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one server; the defaults are those of LM Studio."""

    models_folder: str
    runtime_folder: str  # for the sockets of the engines
    port: int
    api_token: str | None = None
    rest_v1: bool = True  # False: a server before 0.4.0, which has /api/v0 alone
    jit_loading: bool = True
    jit_ttl_seconds: float = 3600.0
    auto_evict: bool = True
    context_tokens: int = 4096  # of a load that names none
    slots_count: int = 4
    # Newer builds answer a prompt that is too long with an empty stream instead of an error.
    silent_overflow: bool = False

    def to_json(self) -> str:
        """For the command line of the program."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """From the command line of the program."""
        return cls(**json.loads(text))
