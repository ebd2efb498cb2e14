"""Real workers that share a small memory: who leaves, what is saved of it, and what it finds when it returns."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace

import psutil
import pytest

from autotuned.core.errors import WouldSwap
from autotuned.core.memory import MemoryReading, PressureTier, SwapPolicy
from autotuned.core.model import ModelState
from autotuned.core.plan import PlanAction
from autotuned.hardware.probe import PsutilMachine
from tests.engines.random_models import write_large_llama
from tests.examples import DEFAULTS
from tests.services.real_house import chat, finished, real_house, started

MIB = 1 << 20
# With this context a worker takes about 216 MiB: two have room beside the margin, a sixth of the memory, and
# three have not, also where the system counts a few MiB more or less.
CONTEXT_TOKENS = 4096
TOTAL_BYTES = 648 * MIB
PARAMETERS_COUNT = 40_000_000
NAMES = ("first", "second", "third")
LONG = "The lighthouse keeper wrote down the wind, the ships and the weather. " * 60


class SmallMachine(PsutilMachine):
    """A machine whose memory is small; what real workers take of it is read from the system."""

    def __init__(self, models, total_bytes=TOTAL_BYTES):
        super().__init__()
        self.total_bytes = total_bytes
        self.others_bytes = 0
        self._models = models

    async def read_memory(self):
        taken_bytes = sum(
            self.process_memory(actor.residence.loaded.process_id).resident_bytes
            for actor in self._models.running()
            if actor.residence is not None
        )
        return MemoryReading(
            total_bytes=self.total_bytes,
            available_bytes=max(0, self.total_bytes - self.others_bytes - taken_bytes),
            swap_total_bytes=0,
            swap_free_bytes=0,
        )


@pytest.fixture
async def house(tmp_path):
    defaults = replace(DEFAULTS, prompt_cache_share=0.0)
    async with real_house(tmp_path, defaults=defaults) as made:
        models = tmp_path / "data" / "models"
        first = write_large_llama(models / "first.gguf", parameters_count=PARAMETERS_COUNT)
        for name in NAMES[1:]:
            shutil.copy(first, models / f"{name}.gguf")
        made.residency._machine = SmallMachine(made.models)
        await made.residency.refresh()
        yield made


def loaded(house):
    return {actor.model_id for actor in house.models.running() if actor.residence is not None}


async def ask(house, model, *texts, **changes):
    options = {"model": model, "max_reply_tokens": 8, "swap_policy": SwapPolicy.NEVER} | changes
    return await house.ask(chat(*texts, **options))


async def test_the_model_that_was_used_longest_ago_leaves_and_returns_with_what_it_knew(house):
    for name in ("first", "second"):
        await ask(house, name, LONG, context_tokens=CONTEXT_TOKENS)
    process_id = house.models.running()[0].residence.loaded.process_id
    plan = started(await ask(house, "third", LONG, context_tokens=CONTEXT_TOKENS)).plan
    assert plan.evictions == ("first",)
    assert loaded(house) == {"second", "third"}
    assert not psutil.pid_exists(process_id)
    returned = await ask(house, "first", LONG, context_tokens=CONTEXT_TOKENS)
    assert started(returned).plan.evictions == ("second",)
    assert started(returned).cached_tokens > 0.9 * started(returned).prompt_tokens


async def test_a_growth_keeps_what_was_computed(house):
    before = started(await ask(house, "first", LONG))
    answer = "".join(getattr(event, "text", "") for event in await ask(house, "first", LONG))
    grown = await ask(house, "first", LONG, answer, LONG * 2)
    assert started(grown).plan.action is PlanAction.GROW
    assert started(grown).plan.shape.context_tokens > before.plan.shape.context_tokens
    assert started(grown).cached_tokens >= before.prompt_tokens - 8
    assert finished(grown).usage.cached_tokens == started(grown).cached_tokens


async def test_a_busy_model_stays_and_who_needs_its_memory_is_refused(house):
    leases = [
        await house.models.load(name, None, CONTEXT_TOKENS, SwapPolicy.NEVER, None, lambda progress: None)
        for name in ("first", "second")
    ]
    with pytest.raises(WouldSwap, match='"first" and "second" are in use'):
        await ask(house, "third", "Hello", context_tokens=CONTEXT_TOKENS)
    assert loaded(house) == {"first", "second"}
    for lease in leases:
        lease.release()
    answered = await ask(house, "third", "Hello", context_tokens=CONTEXT_TOKENS)
    assert started(answered).plan.evictions == ("first",)


async def test_no_keep_alive_ends_the_worker_after_the_use(house):
    lease = await house.models.load("first", None, None, SwapPolicy.NEVER, 0.0, lambda progress: None)
    lease.release()
    async with asyncio.timeout(20):
        assert await lease.loaded.wait_gone()
        await (await house.models.actor("first")).settle()
    assert loaded(house) == set()
    assert not psutil.pid_exists(lease.loaded.process_id)


async def test_under_critical_pressure_a_model_shrinks_and_goes_on_with_what_it_knew(tmp_path):
    defaults = replace(DEFAULTS, prompt_cache_share=0.0, kv_cache="f16")
    async with real_house(tmp_path, defaults=defaults) as house:
        write_large_llama(tmp_path / "data" / "models" / "large.gguf", parameters_count=PARAMETERS_COUNT)
        machine = SmallMachine(house.models, total_bytes=2048 * MIB)
        house.residency._machine = machine
        before = started(await ask(house, "large", LONG[:2_000], context_tokens=8192))
        actor = await house.models.actor("large")
        large = actor.residence.loaded
        machine.others_bytes = 1600 * MIB
        await house.residency.relieve()
        assert house.residency.pressure is PressureTier.CRITICAL
        assert actor.state is ModelState.DRAINING
        assert await large.wait_gone()  # it was idle, so it shrinks at once
        after = started(await ask(house, "large", LONG[:2_000]))
        assert after.plan.action is PlanAction.REUSE
        assert after.plan.shape.context_tokens < before.plan.shape.context_tokens
        assert "shrunk" in {reason.code for reason in after.plan.reasons}
        assert after.cached_tokens > 0.9 * after.prompt_tokens
        shrunk_by = large.footprint.total_bytes - actor.residence.loaded.footprint.total_bytes
        assert shrunk_by > 200 * MIB


async def test_lists_tell_how_each_model_would_fit(house):
    entry = (await house.models.get("first")).entry
    fit = house.models.fit_of(entry)
    assert 0 < fit.required_bytes < fit.available_bytes <= TOTAL_BYTES
    assert house.models.fit_of(replace(entry, facts=None, problem="damaged")) is None
