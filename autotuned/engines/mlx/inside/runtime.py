"""One model in memory: loaded, warmed up and measured.

``engine_thread`` loads it and calls it; all of it belongs to that thread, except ``prompts``.
Invariant: once it is made, the cache that was asked for has worked with this model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import psutil
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model, load_tokenizer, maybe_set_recommended_wired_limit

from autotuned.engines.mlx.inside.cache_bytes import full_bytes
from autotuned.engines.mlx.inside.grammars import Grammars
from autotuned.engines.mlx.inside.prompts import Prompts
from autotuned.engines.mlx.inside.replies import Marks
from autotuned.engines.mlx.inside.states import Caches, States, always_rewinds, leaves
from autotuned.engines.mlx.inside.vocabulary import Vocabulary
from autotuned.engines.mlx.protocol import LoadReport, WorkerSettings

# What MLX keeps of freed memory while it computes; after each request it gives all of it back.
CACHE_LIMIT_BYTES = 128 << 20
WARM_UP_TOKENS = 32
# Elements that share a scale and a bias in a quantised cache; the second where the first does not fit.
GROUP_SIZES = (64, 32)

Tell = Callable[[str], None]


class CannotQuantise(Exception):
    """The cache of this model cannot be quantised."""


class Runtime:
    """The model, its tokenizer and what belongs to them. ``tell`` takes the phases of the load."""

    def __init__(self, settings: WorkerSettings, tell: Tell) -> None:
        self.settings = settings
        if mx.default_device() == mx.cpu:
            # There MLX would run the system's C++ compiler, which takes seconds and need not be there.
            mx.disable_compile()
        maybe_set_recommended_wired_limit()
        mx.set_cache_limit(CACHE_LIMIT_BYTES)
        tell("reading weights")
        folder = Path(settings.model)
        self.model, config = load_model(folder)
        self.tokenizer = load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))
        tell("allocating")
        self.vocabulary = Vocabulary(self.tokenizer)
        self.prompts = Prompts(self.tokenizer)
        self.grammars = Grammars(
            self.tokenizer,
            longest_reply_bytes=settings.context_tokens * self.vocabulary.longest_bytes(),
        )
        self._group_size = 0
        self.vocabulary_size = 0
        self.needs_checkpoints = False
        self.report = self._warmed_up()
        self.states = States(self.new_caches, settings.prompt_cache_bytes)

    @property
    def ends(self) -> set[int]:
        """The tokens that end a reply."""
        return set(self.tokenizer.eos_token_ids)

    def marks(self, *, calls: bool) -> Marks:
        """The marks in this model's replies, those of calls only where it may call."""
        tokenizer = self.tokenizer
        thinks = tokenizer.has_thinking
        calls = calls and tokenizer.has_tool_calling
        return Marks(
            think_start=tokenizer.think_start if thinks else "",
            think_end=tokenizer.think_end if thinks else "",
            call_start=tokenizer.tool_call_start if calls else "",
            call_end=tokenizer.tool_call_end if calls else "",
        )

    def new_caches(self) -> Caches:
        """Empty caches, quantised where that was asked for and the layer can."""
        caches: Caches = make_prompt_cache(self.model)
        if not self.settings.cache_bits:
            return caches
        return [self._quantised(cache) for cache in caches]

    def logits(self, tokens: mx.array, caches: Caches) -> mx.array:
        """Computes tokens of shape (count,); returns the logits after the last one, (1, vocabulary)."""
        return self.model(tokens[None], cache=caches)[:, -1, :].astype(mx.float32)

    def compute(self, tokens: list[int], caches: Caches) -> None:
        """Computes these tokens for the state that they leave alone."""
        self.model(mx.array([tokens]), cache=caches)
        mx.eval([cache.state for cache in caches])
        mx.clear_cache()

    def _quantised(self, cache: Any) -> Any:
        if type(cache).__name__ != "KVCache":  # windows and recurrent layers stay as they are
            return cache
        return cache.to_quantized(group_size=self._group_size, bits=self.settings.cache_bits)

    def _warmed_up(self) -> LoadReport:
        """Computes a few tokens, which reads every weight, and measures."""
        weights_bytes = sum(array.nbytes for _, array in tree_flatten(self.model.parameters()))
        if self.settings.cache_bits:
            self._group_size = self._fitting_group_size()
        caches = self.new_caches()
        batch = min(WARM_UP_TOKENS, self.settings.batch_tokens, self.settings.context_tokens - 2)
        active_before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(self.model(mx.array([[0] * max(batch, 2)]), cache=caches)[:, -1, :])
        batch_bytes = mx.get_peak_memory() - active_before
        logits = self.logits(mx.array([0]), caches)
        mx.eval(logits)
        self.vocabulary_size = logits.shape[-1]
        self.needs_checkpoints = not all(always_rewinds(part) for part in leaves(caches))
        kv_cache_bytes = full_bytes(
            caches, context_tokens=self.settings.context_tokens, batch_tokens=self.settings.batch_tokens
        )
        kept_bytes = sum(int(part.nbytes) for part in leaves(caches))
        compute_bytes = max(batch_bytes - kept_bytes, 1) * self.settings.batch_tokens // max(batch, 2)
        del caches, logits
        mx.clear_cache()
        mx.reset_peak_memory()
        return LoadReport(
            weights_bytes=weights_bytes,
            kv_cache_bytes=kv_cache_bytes,
            compute_bytes=compute_bytes,
            active_bytes=mx.get_active_memory(),
            resident_bytes=psutil.Process().memory_info().rss,
            device=str(mx.default_device()),
        )

    def _fitting_group_size(self) -> int:
        """The largest group that the vectors of all layers divide into. Raises ``CannotQuantise``."""
        caches = make_prompt_cache(self.model)
        mx.eval(self.model(mx.array([[0, 0]]), cache=caches))
        plain = [part for part in leaves(caches) if type(part).__name__ == "KVCache"]
        lengths = {array.shape[-1] for part in plain for array in (part.keys, part.values)}
        for size in GROUP_SIZES:
            if all(length % size == 0 for length in lengths):
                return size
        raise CannotQuantise(f"its vectors of {max(lengths)} elements do not divide into groups")
