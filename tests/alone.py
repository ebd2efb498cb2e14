"""How daemons under test are kept from what the person who runs the tests has on the machine."""

from __future__ import annotations

from autotuned.core.settings import LmstudioSettings, OllamaSettings, StoreSettings

ENVIRONMENT = {
    "AUTOTUNE_STORES_OLLAMA": "off",
    "AUTOTUNE_STORES_LMSTUDIO": "off",
    "AUTOTUNE_STORES_HUGGINGFACE": "off",
    "AUTOTUNE_OLLAMA_MODE": "off",
    "AUTOTUNE_LMSTUDIO_MODE": "off",
    "AUTOTUNE_LLAMACPP_SERVER": "embedded",
}
"""For a daemon in a process of its own."""

SETTINGS = {
    "stores": StoreSettings(ollama="off", lmstudio="off", huggingface="off"),
    "ollama": OllamaSettings(mode="off"),
    "lmstudio": LmstudioSettings(mode="off"),
}
"""For a daemon in this process."""
