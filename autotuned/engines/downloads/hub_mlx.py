"""Which files of a Hugging Face repository MLX needs. Pure functions.

``huggingface`` gives the list of files, of a repository that has no GGUF files.
Invariant: what is chosen here is what ``stores.mlx`` finds once it is on the disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NoReturn

from autotuned.engines.downloads.hub_choice import Choice, HubFile
from autotuned.engines.downloads.protocol import DownloadFailure
from autotuned.engines.mlx.facts import written_quantization
from autotuned.engines.stores.mlx import MLX_PUBLISHER, TOKENIZERS

# What mlx_lm loads of a folder; of split weights all parts.
_WEIGHTS = re.compile(r"(?P<stem>model[^/]*?)(?:-\d{5}-of-(?P<parts>\d{5}))?\.safetensors")
_IN_NAME = re.compile(r"(?<![a-z0-9])(?:(?P<bits>\d)-?bit|(?P<type>bf16|fp16|fp32))(?![a-z0-9])")
_NAMES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "chat_template.json",
        "chat_template.jinja",
        "processor_config.json",
        "preprocessor_config.json",
        "model.safetensors.index.json",
        *TOKENIZERS,
    }
)


def may_be_mlx(files: Iterable[HubFile]) -> bool:
    """Whether MLX could read it, as far as names tell: weights as safetensors and a configuration."""
    paths = {file.path for file in files}
    return "config.json" in paths and any(map(_WEIGHTS.fullmatch, paths))


def choose_mlx(
    name: str, files: Sequence[HubFile], configuration: Mapping[str, Any], quantization: str
) -> Choice:
    """The files that MLX reads, of a repository whose ``config.json`` says ``configuration``.

    What counts as converted for MLX is what the model list takes: a publisher that does nothing else, or a
    configuration with "quantization".

    Raises:
        DownloadFailure: UNSUPPORTED where the weights are not for MLX or the tokenizer is missing;
            FIELD_INVALID for a quantization that the repository does not have.
    """
    if not name.startswith(f"{MLX_PUBLISHER}/") and not configuration.get("quantization"):
        raise_plain_weights(name)
    if configuration.get("model_file"):
        raise DownloadFailure(
            "UNSUPPORTED",
            f'"{name}" needs a program of its own to run, which is not executed; choose another repository.',
        )
    chosen = tuple(file for file in files if _is_for_mlx(file.path))
    if missing := _missing_for_mlx({file.path for file in chosen}):
        raise DownloadFailure(
            "UNSUPPORTED", f'"{name}" has no {missing}, so that MLX cannot run it; choose another repository.'
        )
    label = _label(name, configuration)
    if quantization and quantization.lower() not in {label.lower(), label.lower().replace("-", "")}:
        has = f"only {label}" if label else "no quantization"
        raise DownloadFailure(
            "FIELD_INVALID",
            f'"{name}" has no GGUF files and {has}, not {quantization}; leave ":{quantization}" out.',
        )
    return Choice(engine="mlx", stem="", quantization=label, files=chosen)


def raise_plain_weights(name: str) -> NoReturn:
    """Refuses a repository that is for other programs."""
    raise DownloadFailure(
        "UNSUPPORTED",
        f'"{name}" has neither GGUF files nor weights that were converted for MLX; take a repository with '
        'GGUF files of the same model, "autotunectl models --registry" lists some.',
    )


def _label(name: str, configuration: Mapping[str, Any]) -> str:
    """What the configuration says of the weights, or else the repository's name; "" where neither does."""
    if written := written_quantization(configuration):
        return written
    found = _IN_NAME.search(name.lower())
    return "" if found is None else f"{found['bits']}-bit" if found["bits"] else found["type"]


def _is_for_mlx(path: str) -> bool:
    return path in _NAMES or bool(_WEIGHTS.fullmatch(path))


def _missing_for_mlx(paths: AbstractSet[str]) -> str:
    """What the files lack; "" where they are all there."""
    if not TOKENIZERS & paths:
        return "tokenizer.json"
    for path in sorted(paths):
        weights = _WEIGHTS.fullmatch(path)
        if weights and weights["parts"]:
            stem, parts = weights["stem"], weights["parts"]
            names = (f"{stem}-{part:05d}-of-{parts}.safetensors" for part in range(1, int(parts) + 1))
            missing = next((name for name in names if name not in paths), "")
            if missing:
                return missing
    return ""
