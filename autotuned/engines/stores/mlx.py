"""Folders in the layout of Hugging Face repositories that MLX can run.

The MLX engine asks for them. Such a folder has ``config.json`` that names an architecture, weights as
``*.safetensors``, all parts of them, and ``tokenizer.json`` or ``tokenizer.model``.
Invariant: nothing is remembered; a scan reads each configuration, and who scans often keeps what it
read by size and time of these files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from autotuned.engines.stores.files import Note, Notes, entries, is_folder, read_text
from autotuned.engines.stores.huggingface import snapshots

# Who converts for MLX alone. A configuration without "quantization" from anybody else may need more
# than MLX reads, and the cache is full of such repositories.
MLX_PUBLISHER = "mlx-community"
TOKENIZERS = frozenset({"tokenizer.json", "tokenizer.model"})

_PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<parts>\d{5})\.safetensors")


def mlx_folders(
    models_folder: Path, huggingface: Path | None, lmstudio: Path | None, note: Note | None = None
) -> Iterator[tuple[str, Path]]:
    """Name and folder of each model, each folder and each name once.

    A folder in the models folder is called by its name and comes first; those of the caches are
    called "publisher/repository". Blocks: lists each folder and reads its configuration.
    """
    names, places = set(), set()
    for name, folder in _found(models_folder, huggingface, lmstudio, note or Notes()):
        place = os.path.realpath(folder)
        if name not in names and place not in places:
            names.add(name)
            places.add(place)
            yield name, Path(folder)


def _found(
    models_folder: Path, huggingface: Path | None, lmstudio: Path | None, note: Note
) -> Iterator[tuple[str, str]]:
    for own in entries(models_folder, note):
        if is_folder(own, follow=True) and _configuration(own.path, note) is not None:
            yield own.name, own.path
    for name, snapshot in snapshots(huggingface, note) if huggingface else ():
        configuration = _configuration(snapshot, note)
        is_converted = name.startswith(f"{MLX_PUBLISHER}/")
        if configuration is not None and (is_converted or configuration.get("quantization")):
            yield name, snapshot
    for publisher in entries(lmstudio, note) if lmstudio else ():
        for repository in entries(publisher.path, note):
            if is_folder(repository, follow=True) and _configuration(repository.path, note) is not None:
                yield f"{publisher.name}/{repository.name}", repository.path


def _configuration(folder: str, note: Note) -> dict[str, object] | None:
    """What ``config.json`` says, where the folder is one that MLX can run."""
    names = {entry.name for entry in entries(folder, note)}
    weights = [name for name in names if name.endswith(".safetensors")]
    if "config.json" not in names or not weights:
        return None
    tokenizers = TOKENIZERS & names
    if not tokenizers:
        note(folder, "it has no tokenizer")
        return None
    for name in (*_all_parts(weights), *tokenizers):
        if not os.path.exists(f"{folder}/{name}"):  # noqa: PTH110 - the path is a text already
            note(folder, f"{name} is missing")
            return None
    configuration = _decoded(read_text(f"{folder}/config.json", note) or b"null")
    if isinstance(configuration, dict) and (
        configuration.get("architectures") or configuration.get("model_type")
    ):
        return configuration
    note(folder, "its config.json names no architecture")
    return None


def _decoded(content: bytes) -> object:
    """What a JSON text says; None where it is none."""
    try:
        return msgspec.json.decode(content)
    except (ValueError, RecursionError):
        # Configurations of recurrent models say "Infinity", which is no JSON and read by Python's own
        # parser alone; the daemon does without it until it meets one.
        import json  # noqa: PLC0415

    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _all_parts(weights: list[str]) -> set[str]:
    """The files that there must be when these are."""
    wanted = set(weights)
    for name in weights:
        if part := _PART.fullmatch(name):
            count = int(part["parts"])
            wanted |= {
                f"{part['stem']}-{number:05d}-of-{part['parts']}.safetensors"
                for number in range(1, count + 1)
            }
    return wanted
