"""KV prefixes of models that cannot go back to an earlier token, on an engine that saves their whole state.

Such a state serves what goes on from its very end: the next turn of its conversation, and nothing else.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuned.core.generation import Usage
from autotuned.core.model import CacheLayout, LayerGroup
from tests.services.kv_model import (
    ANSWER,
    ENTRY,
    FIRST,
    OTHER,
    REPLY,
    SECOND,
    SYSTEM,
    KvModel,
    ask,
    tokens_of,
)
from tests.services.test_services_prefixes import House

HYBRID = LayerGroup(layers_count=4, kv_heads=2, key_length=32, value_length=32, recurrent_bytes=1 << 12)
FACTS = replace(ENTRY.facts, layer_groups=(HYBRID,), cache_layout=CacheLayout.MLX)
HYBRID_ENTRY = replace(ENTRY, facts=FACTS)


class HybridModel(KvModel):
    """Keeps the state at the end of the prompt, and goes on from there or from nothing."""

    def evaluate(self, request, conversation):
        prompt = tokens_of(request)
        mine = next((tokens for name, tokens in self._slots if name == conversation), self._slots[0][1])
        cached = len(mine) if prompt[: len(mine)] == mine else 0
        self._put(conversation, prompt)
        return Usage(len(prompt), cached, len(REPLY))


@pytest.fixture
async def house(tmp_path):
    house = House(tmp_path)
    await house.start()
    yield house
    await house.stop()


async def serve(prefixes, loaded, request):
    """One request; returns the tokens that were cached."""
    chain = prefixes.chain(request, HYBRID_ENTRY, loaded, "1")
    await prefixes.before_request(loaded, HYBRID_ENTRY, chain)
    usage = loaded.evaluate(request, chain.conversation)
    seconds = (usage.prompt_tokens - usage.cached_tokens) * 0.01
    prefixes.after_request(loaded, HYBRID_ENTRY, chain, usage, seconds, discard=False)
    return usage.cached_tokens


async def unload(house, model):
    await house.prefixes.save(model)
    house.prefixes.forget(model)
    model.is_gone = True
    await house.prefixes.close()


async def test_the_next_turn_goes_on_after_an_unload(house):
    first = HybridModel(house.folder)
    await serve(house.prefixes, first, ask(SYSTEM, FIRST))
    await unload(house, first)
    again = HybridModel(house.folder, "two")
    cached = await serve(house.prefixes, again, ask(SYSTEM, FIRST, ANSWER, SECOND))
    assert cached == len(tokens_of(ask(SYSTEM, FIRST)))
    assert (house.prefixes.hits_count, house.prefixes.misses_count) == (1, 0)
    assert len(again.restores) == 1


@pytest.mark.parametrize(
    "request_that_differs", [ask(SYSTEM, OTHER), ask(SYSTEM), ask(SYSTEM, FIRST, SECOND)]
)
async def test_a_state_is_not_read_for_what_leaves_before_its_end(house, request_that_differs):
    first = HybridModel(house.folder)
    await serve(house.prefixes, first, ask(SYSTEM, FIRST, ANSWER, SECOND))
    await unload(house, first)
    assert house.prefixes.saved_count == 1
    again = HybridModel(house.folder, "two")
    assert await serve(house.prefixes, again, request_that_differs) == 0
    assert again.restores == []
    # It was no miss: the file serves its own conversation still.
    assert (house.prefixes.saved_count, house.prefixes.misses_count) == (1, 0)


async def test_a_live_state_counts_for_what_goes_on_from_it_alone(house):
    model = HybridModel(house.folder)
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await house.rest()
    assert house.prefixes.saved_count == 1
    # An edited message leaves nothing of the live state; the saved one does not help either.
    assert await serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, SECOND)) > 0
    assert await serve(house.prefixes, model, ask(SYSTEM, OTHER)) == 0
    assert model.restores == []
    # Back to the first branch: the live state is of another one now, the saved one is read back.
    cached = await serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, OTHER))
    assert cached == len(tokens_of(ask(SYSTEM, FIRST)))
    assert len(model.restores) == 1
