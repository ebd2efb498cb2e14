"""One generation: prefill in batches, then token by token, until something ends it.

``engine_thread`` runs it. Invariants: between any two computations it looks whether it is still wanted;
what was computed stays in the state of its conversation; the first event has the exact counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx

from autotuned.engines.mlx import protocol
from autotuned.engines.mlx.inside.answer import STOP, Answer, Emit
from autotuned.engines.mlx.inside.problems import Problem, invalid
from autotuned.engines.mlx.inside.prompts import Prompt
from autotuned.engines.mlx.inside.runtime import Runtime
from autotuned.engines.mlx.inside.sampling import Sampler, recent_tokens
from autotuned.engines.mlx.inside.states import Reply, State

MILLISECONDS = 1000.0
# MLX's own cache of freed memory is emptied after so many tokens.
CLEAR_TOKENS = 256


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


class Generation:
    """One call. ``is_wanted`` is asked between computations."""

    def __init__(
        self, runtime: Runtime, call: protocol.GenerateCall, emit: Emit, is_wanted: Callable[[], bool]
    ) -> None:
        self._runtime = runtime
        self._call = call
        self._emit = emit
        self._is_wanted = is_wanted
        self._grammar = runtime.grammars.grammar(call)
        self._sampler = Sampler(call.sampling, runtime.vocabulary_size)
        self._only_prefills = call.prefill_only or call.max_tokens == 0
        self._prompt = runtime.prompts.prompt(call.prompt, finds_opening=runtime.needs_checkpoints)
        self._begun_tokens: Sequence[int] = ()
        self._cached_tokens = 0

    def run(self) -> None:
        """Emits every chunk. Raises ``Problem`` and ``Cancelled``."""
        started_at = time.perf_counter()
        self._take_exact_tokens()
        prompt = self._prompt
        self._check_length()
        states = self._runtime.states
        state = states.begin(self._call.conversation, prompt.tokens)
        self._cached_tokens = len(state.tokens)
        state.reply = Reply(prompt.text, prompt.tokens)
        self._tell_progress(len(state.tokens))
        try:
            self._prefill(state)
            if self._only_prefills:
                self._tell_end(STOP, 0, started_at, time.perf_counter())
            else:
                self._answer(state, started_at)
        except (Problem, Cancelled):
            raise
        except BaseException:  # what the caches hold is in doubt
            states.drop(self._call.conversation)
            raise

    def _take_exact_tokens(self) -> None:
        """A reply that goes on has the tokens that were drawn, which its text alone may not tell."""
        state = self._runtime.states.of(self._call.conversation)
        if state is None or not self._prompt.goes_on or not state.reply.text:
            return
        reply = state.reply
        begun = reply.prompt_text + reply.text
        if not self._prompt.text.startswith(begun):
            return
        tokens = [*reply.prompt_tokens, *reply.tokens]
        if rest := self._prompt.text[len(begun) :]:
            tokens += self._runtime.prompts.encode(rest)
        else:
            self._begun_tokens = reply.tokens
        self._prompt = Prompt(
            text=self._prompt.text, tokens=tokens, goes_on=True, opens_answer_at=len(tokens)
        )

    def _check_length(self) -> None:
        count, context_tokens = len(self._prompt.tokens), self._runtime.settings.context_tokens
        if not count:
            raise invalid("request", "the prompt is empty; send at least one token.")
        if count >= context_tokens:
            raise Problem(
                protocol.CONTEXT_TOO_LONG,
                "the prompt does not fit",
                prompt_tokens=count,
                context_tokens=context_tokens,
            )

    def _prefill(self, state: State) -> None:
        """Computes the prompt, all but its last token where an answer follows: that one gives its logits."""
        tokens = self._prompt.tokens
        end = len(tokens) - (not self._only_prefills)
        checkpoint_at = min(self._prompt.opens_answer_at, len(tokens) - 1)
        needs_checkpoints = self._runtime.needs_checkpoints
        while (done := len(state.tokens)) < end:
            self._check_wanted()
            stop = min(done + self._runtime.settings.batch_tokens, end)
            if needs_checkpoints and done < checkpoint_at:
                stop = min(stop, checkpoint_at)
            batch = tokens[done:stop]
            self._runtime.compute(batch, state.caches)
            state.tokens.extend(batch)
            if needs_checkpoints and stop == checkpoint_at:
                state.check()
            self._tell_progress(stop)

    def _answer(self, state: State, started_at: float) -> None:
        answer = Answer(
            self._runtime,
            self._call,
            self._prompt,
            state.reply,
            emit=self._emit,
            begun_tokens=self._begun_tokens,
        )
        first_at = 0.0
        for token, logits in self._tokens(state, answer):
            if not first_at:
                first_at = time.perf_counter()
                self._tell_progress(len(self._prompt.tokens))
            answer.take(token, logits)
            if answer.reason:
                break
        answer.close()
        self._tell_end(answer.reason, answer.tokens_count, started_at, first_at)

    def _tokens(self, state: State, answer: Answer) -> Iterator[tuple[int, mx.array]]:
        """The tokens of the reply and the logits of each, at most as many as there is room for.

        Without a grammar the next one is computed while the one before is read.
        """
        room = self._runtime.settings.context_tokens - len(self._prompt.tokens)
        limit = room if self._call.max_tokens is None else min(room, self._call.max_tokens)
        recent = recent_tokens(self._prompt.tokens)
        rest = self._prompt.tokens[len(state.tokens) :]
        is_bound = self._grammar is not None and not answer.is_thinking
        drawn, logits = self._step(mx.array(rest), state, recent, is_bound=is_bound)
        state.tokens.extend(rest)
        for count in range(1, limit + 1):
            following = None
            if count < limit and self._grammar is None:
                recent = mx.concatenate([recent, drawn])
                following = self._step(drawn, state, recent, is_bound=False)
                mx.async_eval(*following)
            token = int(drawn.item())
            if following is not None:
                state.tokens.append(token)
            yield token, logits
            self._check_wanted()
            if count == limit:
                return
            if following is None:
                if self._grammar is not None and is_bound:
                    self._grammar.take(token)
                recent = mx.concatenate([recent, drawn])
                is_bound = not answer.is_thinking
                following = self._step(drawn, state, recent, is_bound=is_bound)
                state.tokens.append(token)
            drawn, logits = following
            if count % CLEAR_TOKENS == 0:
                mx.clear_cache()

    def _step(
        self, fed: mx.array, state: State, recent: mx.array, *, is_bound: bool
    ) -> tuple[mx.array, mx.array]:
        """A drawn token and the logits that it was drawn from, both still to be computed."""
        logits = self._runtime.logits(fed, state.caches)
        choice = logits
        if self._grammar is not None and is_bound:
            allowed = self._grammar.allowed(self._runtime.vocabulary_size)
            choice = mx.where(allowed, logits, mx.array(-float("inf"), logits.dtype))
        return self._sampler.draw(choice, recent), logits

    def _check_wanted(self) -> None:
        if not self._is_wanted():
            raise Cancelled

    def _tell_progress(self, processed_tokens: int) -> None:
        total = len(self._prompt.tokens)
        self._emit(
            {
                "prompt_progress": {
                    "total": total,
                    "cache": self._cached_tokens,
                    "processed": processed_tokens,
                }
            }
        )

    def _tell_end(self, reason: str, reply_tokens: int, started_at: float, first_at: float) -> None:
        prompt_tokens = len(self._prompt.tokens)
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": reply_tokens,
            "prompt_tokens_details": {"cached_tokens": self._cached_tokens},
        }
        timings = {
            "prompt_ms": (first_at - started_at) * MILLISECONDS,
            "predicted_ms": (time.perf_counter() - first_at) * MILLISECONDS,
        }
        choice = {"index": 0, "delta": {}, "finish_reason": reason}
        self._emit({"choices": [choice], "usage": usage, "timings": timings})
