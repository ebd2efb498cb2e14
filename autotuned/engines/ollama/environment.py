"""What a server of the daemon's own is told in its environment.

``server`` starts it with this. Nothing here can be set with a request or a load.
Invariant: what ``settings_shown`` says was set is in the environment.
"""

from __future__ import annotations

from autotuned.core.settings import OllamaSettings
from autotuned.engines.endpoint import Endpoint
from autotuned.engines.ollama.address import listen_address

MANAGED = "managed"
# The daemon decides who is in memory; Ollama must not have one leave because it counts them.
MOST_LOADED_MODELS = 64


def server_environment(settings: OllamaSettings, endpoint: Endpoint) -> dict[str, str]:
    """The variables for ``ollama serve``: the address, and in managed mode everything that is set."""
    address = {"OLLAMA_HOST": listen_address(endpoint)}
    if settings.mode != MANAGED:
        return address
    return address | {
        "OLLAMA_FLASH_ATTENTION": "1",
        "OLLAMA_KV_CACHE_TYPE": settings.kv_cache,
        "OLLAMA_NUM_PARALLEL": str(settings.slots),
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_MAX_LOADED_MODELS": str(MOST_LOADED_MODELS),
        # Read by the llama.cpp server that each model runs in: Ollama hands its environment on.
        "LLAMA_ARG_CACHE_RAM": str(settings.prompt_cache_mib),
    }


def settings_shown(settings: OllamaSettings) -> tuple[tuple[str, str], ...]:
    """The same for people; empty for a server whose settings are somebody else's."""
    if settings.mode != MANAGED:
        return ()
    return (
        ("flash attention", "on"),
        ("kv cache", settings.kv_cache),
        ("slots", str(settings.slots)),
        ("prompt cache MiB", str(settings.prompt_cache_mib)),
    )
