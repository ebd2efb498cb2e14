"""States in files: written and read with mlx_lm's own functions, under the name that the daemon wants.

``engine_thread`` calls it. mlx_lm tells its format by the end of a name, so the file is written and read
under another one beside it. The latest reply is in it, too: it goes on from the very tokens.
Invariant: a file under the daemon's name is whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from pathlib import Path

import mlx.core as mx
from mlx_lm.models.cache import load_prompt_cache, save_prompt_cache

from autotuned.engines.mlx.inside.states import Reply, State, leaves

_SUFFIX = ".safetensors"
_TOKENS, _REPLY = "tokens", "reply"


def write_state(path: Path, state: State) -> int:
    """Writes a state and returns the bytes of its file. Raises ``OSError`` and ``RuntimeError``."""
    beside = path.with_name(path.name + _SUFFIX)
    metadata = {_TOKENS: json.dumps(state.tokens), _REPLY: json.dumps(dataclasses.asdict(state.reply))}
    try:
        save_prompt_cache(str(beside), state.caches, metadata)
        size = beside.stat().st_size
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    return size


def read_state(path: Path) -> State:
    """Reads a state back. Raises ``OSError`` and, for what is no state, many others."""
    beside = path.with_name(path.name + _SUFFIX)
    os.link(path, beside)
    try:
        caches, metadata = load_prompt_cache(str(beside), return_metadata=True)
        # Arrays are read when they are needed, and the name is gone by then.
        mx.eval([part.state for part in leaves(caches)])
    finally:
        beside.unlink()
    reply = Reply(**json.loads(metadata[_REPLY]))
    state = State(caches, json.loads(metadata[_TOKENS]), reply=reply)
    if not state.can_rewind:
        state.check()
    return state
