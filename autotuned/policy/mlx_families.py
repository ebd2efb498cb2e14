"""How families of Ollama's library are written on Hugging Face, where mlx-community has them.

``mlx_names`` fills the patterns: {size} is "8B" or "30B-A3B", {small} the same in small letters, {bits}
"4bit". Each pattern was seen in names that people load; where there are two, the likelier comes first.
Invariant: a tag leads to the model that the library has under it, not to a relative of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# By family, and by family and variant where a variant is another model.
FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "codestral": ("Codestral-{size}-v0.1-{bits}",),
        "codestral v0.1": ("Codestral-{size}-v0.1-{bits}",),
        "deepseek-r1": ("DeepSeek-R1-Distill-Qwen-{size}-{bits}",),
        "deepseek-r1 qwen-distill": ("DeepSeek-R1-Distill-Qwen-{size}-{bits}",),
        "deepseek-r1 llama-distill": ("DeepSeek-R1-Distill-Llama-{size}-{bits}",),
        "deepseek-r1 0528-qwen3": ("DeepSeek-R1-0528-Qwen3-{size}-{bits}",),
        "devstral": ("Devstral-Small-2505-{bits}",),
        "devstral small-2505": ("Devstral-Small-2505-{bits}",),
        "devstral-small-2": ("Devstral-Small-2-{size}-Instruct-2512-{bits}",),
        "gemma2": ("gemma-2-{small}-it-{bits}",),
        "gemma3": ("gemma-3-{small}-it-{bits}",),
        "gemma3 it-qat": ("gemma-3-{small}-it-qat-{bits}",),
        "gemma3n": ("gemma-3n-{size}-it-lm-{bits}", "gemma-3n-{size}-it-{bits}"),
        "gemma4": ("gemma-4-{small}-it-{bits}", "gemma-4-{size}-it-{bits}"),
        "glm-4.7-flash": ("GLM-4.7-Flash-{bits}",),
        "gpt-oss": ("gpt-oss-{small}-MXFP4-Q8", "gpt-oss-{small}-MXFP4-Q4"),
        "llama3": ("Meta-Llama-3-{size}-Instruct-{bits}",),
        "llama3.1": ("Meta-Llama-3.1-{size}-Instruct-{bits}", "Llama-3.1-{size}-Instruct-{bits}"),
        "llama3.2": ("Llama-3.2-{size}-Instruct-{bits}",),
        "llama3.3": ("Llama-3.3-{size}-Instruct-{bits}",),
        "magistral": ("Magistral-Small-2506-{bits}",),
        "magistral small-2506": ("Magistral-Small-2506-{bits}",),
        "ministral-3": ("Ministral-3-{size}-Instruct-2512-{bits}",),
        "mistral": ("Mistral-{size}-Instruct-v0.3-{bits}",),
        "mistral instruct-v0.3": ("Mistral-{size}-Instruct-v0.3-{bits}",),
        "mistral instruct-v0.2": ("Mistral-{size}-Instruct-v0.2-{bits}",),
        "mistral-nemo": ("Mistral-Nemo-Instruct-2407-{bits}",),
        "mistral-small": ("Mistral-Small-{size}-Instruct-2501-{bits}",),
        "mistral-small3.1": ("Mistral-Small-3.1-{size}-Instruct-2503-{bits}",),
        "mistral-small3.2": ("Mistral-Small-3.2-{size}-Instruct-2506-{bits}",),
        "mixtral": ("Mixtral-{size}-Instruct-v0.1-{bits}",),
        "mixtral instruct-v0.1": ("Mixtral-{size}-Instruct-v0.1-{bits}",),
        "nemotron-3-nano": ("NVIDIA-Nemotron-3-Nano-{size}-{bits}",),
        "phi3.5": ("Phi-3.5-mini-instruct-{bits}",),
        "phi4": ("phi-4-{bits}",),
        "phi4-mini": ("Phi-4-mini-instruct-{bits}",),
        "phi4-mini-reasoning": ("Phi-4-mini-reasoning-{bits}",),
        "phi4-reasoning": ("Phi-4-reasoning-{bits}",),
        "phi4-reasoning plus": ("Phi-4-reasoning-plus-{bits}",),
        "qwen2.5": ("Qwen2.5-{size}-Instruct-{bits}",),
        "qwen2.5-coder": ("Qwen2.5-Coder-{size}-Instruct-{bits}",),
        "qwen2.5vl": ("Qwen2.5-VL-{size}-Instruct-{bits}",),
        "qwen3": ("Qwen3-{size}-{bits}",),
        "qwen3 instruct": ("Qwen3-{size}-Instruct-2507-{bits}",),
        "qwen3 instruct-2507": ("Qwen3-{size}-Instruct-2507-{bits}",),
        "qwen3 thinking": ("Qwen3-{size}-Thinking-2507-{bits}",),
        "qwen3 thinking-2507": ("Qwen3-{size}-Thinking-2507-{bits}",),
        "qwen3-coder": ("Qwen3-Coder-{size}-Instruct-{bits}",),
        "qwen3-coder-next": ("Qwen3-Coder-Next-{bits}",),
        "qwen3-next": ("Qwen3-Next-{size}-Thinking-{bits}",),
        "qwen3-next instruct": ("Qwen3-Next-{size}-Instruct-{bits}",),
        "qwen3-next thinking": ("Qwen3-Next-{size}-Thinking-{bits}",),
        "qwen3-vl": ("Qwen3-VL-{size}-Thinking-{bits}",),
        "qwen3-vl instruct": ("Qwen3-VL-{size}-Instruct-{bits}",),
        "qwen3-vl thinking": ("Qwen3-VL-{size}-Thinking-{bits}",),
        "qwen3.5": ("Qwen3.5-{size}-{bits}",),
        "qwen3.6": ("Qwen3.6-{size}-{bits}",),
        "qwen3.8": ("Qwen3.8-{size}-{bits}",),
        "qwq": ("QwQ-{size}-{bits}",),
        "qwq preview": ("QwQ-{size}-Preview-{bits}",),
        "smollm2": ("SmolLM2-{size}-Instruct-{bits}", "SmolLM2-{size}-Instruct"),
        "smollm3": ("SmolLM3-{size}-{bits}",),
    }
)

# Tags that are not written by their family's pattern, whatever the quantization.
TAGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "deepseek-coder-v2:16b": (
            "DeepSeek-Coder-V2-Lite-Instruct-{bits}-mlx",
            "DeepSeek-Coder-V2-Lite-Instruct-{bits}",
        ),
        "deepseek-r1:8b": ("DeepSeek-R1-0528-Qwen3-8B-{bits}",),
        "deepseek-r1:70b": ("DeepSeek-R1-Distill-Llama-70B-{bits}",),
        "deepseek-r1:671b": ("DeepSeek-R1-0528-{bits}",),
        "granite4:micro": ("granite-4.0-micro-{bits}",),
        "granite4:micro-h": ("granite-4.0-h-micro-{bits}",),
        "granite4:small-h": ("granite-4.0-h-small-{bits}",),
        "granite4:tiny-h": ("granite-4.0-h-tiny-{bits}",),
        "llama4:16x17b": ("Llama-4-Scout-17B-16E-Instruct-{bits}",),
        "llama4:scout": ("Llama-4-Scout-17B-16E-Instruct-{bits}",),
        "mistral-small:22b": ("Mistral-Small-Instruct-2409-{bits}",),
        "phi3:mini": ("Phi-3-mini-4k-instruct-{bits}",),
        "phi3:3.8b": ("Phi-3-mini-4k-instruct-{bits}",),
    }
)

# Tags that the library moved on to a newer model, while those with a quantization stayed.
RENEWED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "qwen3:4b": ("Qwen3-4B-Thinking-2507-{bits}",),
        "qwen3:30b-a3b": ("Qwen3-30B-A3B-Thinking-2507-{bits}",),
        "qwen3:235b-a22b": ("Qwen3-235B-A22B-Thinking-2507-{bits}",),
    }
)

# Mixtures of experts that the library calls by all of their parameters alone.
FULL_SIZES: Mapping[str, str] = MappingProxyType(
    {
        "gemma4:26b": "26b-a4b",
        "nemotron-3-nano:30b": "30b-a3b",
        "qwen3:30b": "30b-a3b",
        "qwen3:235b": "235b-a22b",
        "qwen3-coder:30b": "30b-a3b",
        "qwen3-coder:480b": "480b-a35b",
        "qwen3-next:80b": "80b-a3b",
        "qwen3-vl:30b": "30b-a3b",
        "qwen3-vl:235b": "235b-a22b",
        "qwen3.5:35b": "35b-a3b",
        "qwen3.5:122b": "122b-a10b",
        "qwen3.6:35b": "35b-a3b",
    }
)

# What the library has under "latest", where the pattern asks for a size.
USUAL_TAGS: Mapping[str, str] = MappingProxyType(
    {
        "codestral": "22b",
        "deepseek-coder-v2": "16b",
        "deepseek-r1": "8b",
        "devstral-small-2": "24b",
        "gemma2": "9b",
        "gemma3": "4b",
        "gemma3n": "e4b",
        "gemma4": "e4b",
        "gpt-oss": "20b",
        "granite4": "micro",
        "llama3": "8b",
        "llama3.1": "8b",
        "llama3.2": "3b",
        "llama3.3": "70b",
        "llama4": "scout",
        "ministral-3": "8b",
        "mistral": "7b",
        "mistral-small": "24b",
        "mistral-small3.1": "24b",
        "mistral-small3.2": "24b",
        "mixtral": "8x7b",
        "nemotron-3-nano": "30b",
        "phi3": "mini",
        "qwen2.5": "7b",
        "qwen2.5-coder": "7b",
        "qwen2.5vl": "7b",
        "qwen3": "8b",
        "qwen3-coder": "30b",
        "qwen3-next": "80b",
        "qwen3-vl": "8b",
        "qwen3.5": "9b",
        "qwq": "32b",
        "smollm2": "1.7b",
    }
)
