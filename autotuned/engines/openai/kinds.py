"""What programs there are behind OpenAI's dialect, and what each of them honours beyond it.

``listing`` recognizes a program, ``body`` writes for it, ``engine`` declares what all equals can do.
Invariant: what a program is not known to honour is not sent to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from autotuned.core.engine import ALL_SAMPLING, Capabilities, Knobs

OPENAI_SAMPLING = frozenset(
    {"temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "logit_bias"}
)


class ServerKind(Enum):
    """A program that serves; the value is its name."""

    LLAMACPP = "llama.cpp"
    VLLM = "vLLM"
    SGLANG = "SGLang"
    MLX_LM = "mlx-lm"
    AUTOTUNE = "autotune"
    OTHER = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a program honours.

    ``stops``: stop sequences wherever they come. ``ends_by_itself``: without a limit a reply ends when the
    model ends it. ``fills_in``: it reads a suffix, or says that it does not. ``template_options``: it hands
    options to the chat template. ``caches``: it keeps the state of a prompt for the next request.
    ``counts_first``: it tells its counts before prefill, and counts tokens when asked.
    """

    sampling: frozenset[str] = ALL_SAMPLING
    json_schema: bool = True
    tool_choice: bool = True
    images: bool = True
    logprobs: bool = True
    stops: bool = True
    ends_by_itself: bool = True
    fills_in: bool = True
    template_options: bool = False
    caches: bool = True
    counts_cached: bool = False
    counts_first: bool = False


TRAITS = {
    ServerKind.LLAMACPP: Traits(fills_in=False, template_options=True, counts_cached=True, counts_first=True),
    ServerKind.VLLM: Traits(template_options=True),
    ServerKind.SGLANG: Traits(template_options=True),
    # It passes over schemas and tool choices without a word, streams no log probabilities, and finds a
    # stop sequence only where it begins and ends with tokens.
    ServerKind.MLX_LM: Traits(
        json_schema=False,
        tool_choice=False,
        images=False,
        logprobs=False,
        stops=False,
        ends_by_itself=False,
        fills_in=False,
        template_options=True,
        counts_cached=True,
    ),
    ServerKind.AUTOTUNE: Traits(counts_cached=True),
    ServerKind.OTHER: Traits(sampling=OPENAI_SAMPLING, caches=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """What one server can do: its program, whether it reads images, and requests at the same time."""

    kind: ServerKind
    images: bool
    slots_count: int

    @property
    def traits(self) -> Traits:
        """What its program honours."""
        return TRAITS[self.kind]


def capabilities_of(equals: Sequence[Ability]) -> Capabilities:
    """What a request may ask, whichever of the equals takes it."""
    traits = [each.traits for each in equals] or [TRAITS[ServerKind.OTHER]]
    counts_first = all(each.counts_first for each in traits)
    return Capabilities(
        tools=True,
        json_schema=all(each.json_schema for each in traits),
        reasoning=True,
        logprobs=all(each.logprobs for each in traits),
        images=all(each.images for each in equals),
        raw_prompt=True,
        embeddings=False,
        exact_token_counts=counts_first,
        kv_prefixes=False,
        tool_choice=all(each.tool_choice for each in traits),
        sampling=frozenset.intersection(*(each.sampling for each in traits)),
        counts_before_prefill=counts_first,
        counts_cached=all(each.counts_cached for each in traits),
        prefills=all(each.caches for each in traits),
        continues_replies=False,
        is_local=False,
        slots_count=max(1, sum(each.slots_count for each in equals)),
        knobs=Knobs(),
    )
