"""Models that cannot go back: windows that are full, and recurrent layers. Their weights are random.

What such a model answers makes no sense; that it answers the same with a cache and without proves that the
cache held what it was taken to hold.
"""

from contextlib import aclosing

import pytest

pytest.importorskip("mlx_lm", reason="mlx-lm is not installed")

from tests.engines.mlx_engines import mlx_engine
from tests.engines.mlx_models import write_model
from tests.engines.shapes import shape
from tests.suites.engine_case import answer, ask, assistant, finish_of, user

SHAPE = shape(context_tokens=1024, batch_tokens=128, micro_batch_tokens=128, memory_mapped=False)
QUESTION = user("Repeat: " + "la lo lu " * 60)
FILE = "state.bin"
TALK = "talk"


@pytest.fixture(scope="module", params=["gemma3", "qwen3_next", "falcon_h1"])
async def engine(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    write_model(folder, request.param, gain=5.0)
    async with mlx_engine(folder) as (engine, _):
        yield engine


@pytest.fixture
async def entry(engine):
    return (await engine.models())[0]


async def load(engine, entry):
    return await engine.load(entry, SHAPE, lambda _: None)


def logprobs_of(events):
    """What the model made of its prompt, as numbers."""
    return [token.logprob for event in events for token in getattr(event, "logprobs", ())]


def close_to(events):
    """Batches of another size round otherwise in BF16."""
    return pytest.approx(logprobs_of(events), abs=0.05)


async def test_only_what_goes_on_is_cached_and_it_answers_the_same(engine, entry):
    assert not entry.facts.rewinds
    assert entry.facts.saves_state
    model = await load(engine, entry)
    fields = {"max_reply_tokens": 8, "top_logprobs_count": 0}
    first = await answer(model, ask(QUESTION, **fields), TALK)
    prompt_tokens = finish_of(first).usage.prompt_tokens
    assert prompt_tokens > 150
    assert len(logprobs_of(first)) > 1

    # The same prompt goes back to the end of the conversation, before the answer was opened.
    again = await answer(model, ask(QUESTION, **fields), TALK)
    assert prompt_tokens - 8 <= finish_of(again).usage.cached_tokens < prompt_tokens
    assert logprobs_of(again) == close_to(first)

    # What is saved is that place, too.
    written = await model.save_prefix(TALK, FILE)
    assert prompt_tokens - 8 <= written.tokens_count < prompt_tokens

    # The next turn goes on from there, whatever its reply looks like.
    turn = ask(QUESTION, assistant("Something else."), "What is TTFT?", **fields)
    cached = await answer(model, turn, TALK)
    assert finish_of(cached).usage.cached_tokens == written.tokens_count

    # A prompt that leaves in the middle has nothing to go back to.
    other = await answer(model, ask(user("Repeat: " + "la lo lu " * 55 + "no"), **fields), TALK)
    assert finish_of(other).usage.cached_tokens == 0
    plain = await answer(model, turn, TALK)
    assert finish_of(plain).usage.cached_tokens == 0
    assert logprobs_of(plain) == close_to(cached)
    assert logprobs_of(other) != close_to(plain)
    await model.unload()

    restored = await load(engine, entry)
    assert await restored.restore_prefix(TALK, FILE) == written.tokens_count
    events = await answer(restored, turn, TALK)
    assert finish_of(events).usage.cached_tokens == written.tokens_count
    assert logprobs_of(events) == close_to(plain)

    # A prefill that is cut keeps what was done.
    late = ask(user("Another one. " + "la lo lu " * 60), **fields)
    async with aclosing(restored.prefill(late, TALK)) as progress:
        async for event in progress:
            if event.processed_tokens >= 128:
                break
    kept = await answer(restored, late, TALK)
    assert finish_of(kept).usage.cached_tokens >= 128
    await restored.unload()
