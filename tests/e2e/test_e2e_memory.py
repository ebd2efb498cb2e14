"""A load without swapping either fits or is refused with bytes on both sides; nobody is ever killed for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import autotune
import pytest
from autotune.requests import load_model_request

from tests.e2e.conftest import PATIENCE_SECONDS, RunningDaemon, short_home, spawn_daemon
from tests.engines.random_models import write_model
from tests.memory_groups import CannotLimitMemory, MemoryGroup, memory_group

MIB = 1 << 20
MODEL = "heavy"
CONTEXT_TOKENS = 8192
SENTENCE = "The lighthouse keeper wrote down the wind, the ships and the weather. "


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Quick to compute, with a KV cache of 32 KiB a token: 256 MiB, or 136 MiB as Q8_0."""
    return write_model(
        tmp_path_factory.mktemp("models") / f"{MODEL}.gguf",
        layers=8,
        embedding=256,
        heads=8,
        kv_heads=8,
        head_length=128,
        feed_forward=512,
        train_context=65_536,
    )


@contextmanager
def limited_daemon(model: Path, limit_mib: int) -> Iterator[tuple[MemoryGroup, RunningDaemon]]:
    """A daemon in a group with a limit and no swap, which pays for every page of the model that it reads."""
    with model.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        with memory_group(limit_mib * MIB) as group, short_home() as home:
            (home / "data" / "models").mkdir(parents=True)
            (home / "data" / "models" / model.name).symlink_to(model)
            daemon = spawn_daemon(
                home, wrapper=group.wrapper, AUTOTUNE_MEMORY_MARGIN_MIB="16", AUTOTUNE_MODELS_DEFAULT=MODEL
            )
            try:
                yield group, daemon
            finally:
                daemon.stop()
    except CannotLimitMemory as reason:
        pytest.skip(str(reason))


def load(client: autotune.Client, context_tokens: int) -> autotune.WouldSwap | None:
    """Loads without swapping; the refusal, or None."""
    try:
        for _ in client.load_model(load_model_request(MODEL, context_tokens, no_swap=True)):
            pass
    except autotune.WouldSwap as refusal:
        return refusal
    return None


@pytest.mark.parametrize("limit_mib", [96, 160, 288, 512])
def test_a_load_without_swap_fits_or_is_refused(model, limit_mib):
    with limited_daemon(model, limit_mib) as (group, daemon), autotune.Client(daemon.address) as client:
        context_tokens = CONTEXT_TOKENS
        refusal = load(client, context_tokens)
        if refusal is not None:
            required, available = (
                int(refusal.metadata[f"{side}Bytes"]) for side in ("required", "available")
            )
            context_tokens = int(refusal.metadata["fittingContextTokens"])
            assert 0 <= available < required
            assert context_tokens < CONTEXT_TOKENS
            assert "MiB" in refusal.message
            assert client.list_running_models() == []
        if context_tokens:
            assert refusal is None or load(client, context_tokens) is None
            reply = client.chat(SENTENCE * 5, no_swap=True, max_reply_tokens=8)
            assert reply.usage.reply_tokens > 0
            assert client.snapshot().memory_limit_bytes == limit_mib * MIB
        assert group.killed_count == 0


def test_the_largest_group_holds_it_and_the_smallest_does_not(model):
    with limited_daemon(model, 512) as (_, daemon), autotune.Client(daemon.address) as client:
        assert load(client, CONTEXT_TOKENS) is None
    with limited_daemon(model, 96) as (_, daemon), autotune.Client(daemon.address) as client:
        assert load(client, CONTEXT_TOKENS) is not None


def test_the_command_line_says_what_is_missing_and_what_would_fit(model):
    with limited_daemon(model, 288) as (group, daemon):
        refused = subprocess.run(
            [sys.executable, "-m", "autotunectl", "load", MODEL, "--context", "32768", "--no-swap"],
            env=daemon.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert refused.returncode != 0
        assert refused.stdout == ""
        assert refused.stderr.count("MiB") + refused.stderr.count("GiB") >= 2
        assert group.killed_count == 0


def test_a_message_whose_prompt_cannot_be_held_is_refused_and_others_are_answered(model):
    with limited_daemon(model, 288) as (group, daemon), autotune.Client(daemon.address) as client:
        with pytest.raises(autotune.WouldSwap, match="MiB"):
            client.chat(SENTENCE * 1200, no_swap=True, max_reply_tokens=8)
        assert client.chat("What is in the log?", no_swap=True, max_reply_tokens=8).usage.reply_tokens > 0
        assert group.killed_count == 0
