"""The estimate against real workers: their buffers, and the memory that the system says they have."""

from dataclasses import replace

import psutil
import pytest

from autotuned.core.learning import Learned, MeasuredLoad
from autotuned.policy.footprint import estimate_footprint, prefers_mapping
from autotuned.policy.kv import checkpoint_bytes
from tests.engines.random_models import write_model
from tests.engines.shapes import shape
from tests.suites.engine_case import answer, ask

# Of the whole process, once a load of the same model and batch was measured.
TOLERANCE = 0.05
# Of the whole process, for a model that was never loaded.
FIRST_TOLERANCE = 0.15
MODELS = {
    "llama in Q8_0": ("llama", "Q8_0", {"layers": 8, "heads": 10, "feed_forward": 1792}),
    "llama in Q4_0, repacked": ("llama", "Q4_0", {"layers": 12, "heads": 10, "feed_forward": 2560}),
    "gemma3, with windows": ("gemma3", "Q8_0", {"layers": 12, "heads": 10, "feed_forward": 1280}),
    "falcon-h1, with recurrent state": (
        "falcon-h1",
        "Q8_0",
        {"layers": 6, "heads": 10, "feed_forward": 1280},
    ),
}
FIRST = shape(context_tokens=1024, batch_tokens=256, micro_batch_tokens=256)
OTHERS = (
    replace(FIRST, context_tokens=4096),
    replace(FIRST, context_tokens=2048, slots_count=2),
    replace(FIRST, context_tokens=2048, slots_count=2, kv_unified=True),
    replace(FIRST, context_tokens=2048, memory_mapped=False),
)


class Loads:
    """Loads a model, and compares."""

    def __init__(self, engine, entry):
        self.engine, self.entry = engine, entry

    async def measure(self, wanted):
        """The footprint, and the memory of the process before and after it computed whole micro-batches."""
        model = await self.engine.load(self.entry, wanted, lambda _: None)
        process = psutil.Process(model.process_id)
        idle_bytes = process.memory_info().rss
        await answer(model, ask("la lo " * 150, max_reply_tokens=2))
        worked_bytes = process.memory_info().rss
        await model.unload()
        return MeasuredLoad(model.shape, model.footprint), idle_bytes, worked_bytes

    async def check(self, wanted, learned, tolerance):
        """Holds an estimate against a load."""
        facts = self.entry.facts
        estimate = estimate_footprint(facts, wanted, learned)
        load, idle_bytes, worked_bytes = await self.measure(wanted)
        # Checkpoints are made for long prompts, and counted for all slots.
        expected = estimate.total_bytes - checkpoint_bytes(facts, wanted)
        assert worked_bytes == pytest.approx(expected, rel=tolerance)
        assert idle_bytes == pytest.approx(expected - estimate.compute_bytes, rel=tolerance)
        return estimate, load


@pytest.fixture
async def loads(paths, engine, request):
    architecture, weights, sizes = MODELS[request.param]
    sizes = {"embedding": 640, "kv_heads": 2, "head_length": 64} | sizes
    write_model(paths.data / "models" / "model.gguf", architecture, weights=weights, **sizes)
    entry = next(entry for entry in await engine.models() if entry.id != "pocket")
    assert 30e6 < entry.facts.weights_bytes < 150e6
    return Loads(engine, entry)


@pytest.mark.parametrize("loads", MODELS, indirect=True)
async def test_one_load_foretells_the_others(loads):
    _, first = await loads.check(FIRST, Learned(), FIRST_TOLERANCE)
    learned = Learned(loads=(first,))
    for wanted in OTHERS:
        estimate, load = await loads.check(wanted, learned, TOLERANCE)
        assert load.footprint.compute_bytes == pytest.approx(estimate.compute_bytes, rel=0.05)
        state_bytes = estimate.kv_cache_bytes - checkpoint_bytes(loads.entry.facts, wanted)
        assert load.footprint.kv_cache_bytes == pytest.approx(state_bytes, abs=3 * 0.0051 * (1 << 20))


@pytest.mark.parametrize("loads", ["llama in Q4_0, repacked"], indirect=True)
async def test_reading_spares_what_repacking_would_have_twice(loads):
    assert not prefers_mapping(loads.entry.facts)
    mapped, *_, mapped_bytes = await loads.measure(FIRST)
    read, *_, read_bytes = await loads.measure(replace(FIRST, memory_mapped=False))
    repacked_bytes = mapped.footprint.repacked_weights_bytes
    if not repacked_bytes:
        pytest.skip("this processor needs no other order")
    assert read.footprint.repacked_weights_bytes == repacked_bytes
    assert mapped_bytes - read_bytes == pytest.approx(repacked_bytes, rel=0.1)
