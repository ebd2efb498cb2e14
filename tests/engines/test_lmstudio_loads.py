"""What the LM Studio adapter loads and unloads: never a model twice, never more than it has to."""

import asyncio
import json
from contextlib import aclosing

import pytest

from autotuned.core.engine import EngineState
from autotuned.core.errors import (
    ContextTooLong,
    EngineUnreachable,
    ModelLoadFailed,
    ModelNotFound,
    ShuttingDown,
)
from autotuned.engines.lmstudio.instances import FRESH_SECONDS, Instances
from autotuned.engines.lmstudio.listing import read_v1
from tests.engines.lmstudio_case import (
    case_of,
    instances_of,
    load_in_the_app,
    opened,
    shared_lmstudio,
    unload_all,
    with_own_client,
)
from tests.engines.processes import until
from tests.engines.shapes import SHAPE
from tests.fakes.lmstudio.start import running_lmstudio
from tests.suites.engine_case import TALK, answer, ask, text_of

HELLO = "Hello! How can I help you?"


@pytest.fixture(scope="module")
def shared():
    with shared_lmstudio(slots_count=3) as running:
        yield running


@pytest.fixture
async def double(shared):
    async with with_own_client(shared) as own:
        yield own
        await unload_all(own)


@pytest.fixture
async def engine(double):
    async with opened(double) as engine:
        yield engine


@pytest.fixture
async def case(double, engine):
    return await case_of(double, engine)


async def contexts_of(double):
    return [instance["config"]["context_length"] for instance in await instances_of(double)]


async def requests_of(double, path):
    return [request for request in (await double.state())["requests"] if request["path"] == path]


async def test_loads_at_the_same_time_share_one_instance(double, case):
    before = len((await double.state())["loads"])
    models = await asyncio.gather(*(case.load() for _ in range(5)))
    assert len((await double.state())["loads"]) == before + 1
    assert await contexts_of(double) == [2048]
    assert len({model.incarnation_id for model in models}) == 5
    for model in models[:-1]:
        await model.unload()
        assert model.is_gone
    assert text_of(await answer(models[-1], ask("Hello!"))) == HELLO
    await models[-1].unload()
    assert await instances_of(double) == []


async def test_loads_of_different_shapes_at_the_same_time_leave_one_instance(double, case):
    models = await asyncio.gather(*(case.load(context_tokens=tokens) for tokens in (512, 1024, 2048)))
    [left] = await contexts_of(double)
    lives = [model for model in models if not model.is_gone]
    assert [model.shape.context_tokens for model in lives] == [left]
    assert text_of(await answer(lives[0], ask("Hello!"))) == HELLO


async def test_two_engines_never_leave_two_instances(double, case):
    async with opened(double) as other:
        other_case = await case_of(double, other)
        await asyncio.gather(case.load(), other_case.load(context_tokens=1024), return_exceptions=True)
        assert len(await instances_of(double)) <= 1


async def test_growth_unloads_then_loads(double, case):
    small = await case.load(context_tokens=1024)
    large = await case.load(context_tokens=4096)
    assert small.is_gone
    assert "4,096" in await small.wait_gone()
    assert large.shape.context_tokens == 4096
    assert await contexts_of(double) == [4096]
    with pytest.raises(EngineUnreachable, match="4,096"):
        await answer(small, ask("Hello!"))


async def test_the_shape_is_what_the_server_tells(case):
    model = await case.load(flash_attention=False, batch_tokens=64)
    shape = model.shape
    assert (shape.context_tokens, shape.flash_attention, shape.batch_tokens) == (2048, False, 512)
    assert (shape.slots_count, shape.kv_unified) == (3, True)
    assert case.engine.capabilities().slots_count == 3
    assert {"kv_unified", "key_cache_type", "gpu_layers_count"} <= set(shape.assumed)
    assert not {"context_tokens", "flash_attention", "batch_tokens", "slots_count"} & set(shape.assumed)


# What others loaded.


async def test_what_somebody_else_loaded_is_used_as_it_is(double, case):
    instance_id = await load_in_the_app(double, context_length=3072, flash_attention=False)
    before = len((await double.state())["loads"])
    model = await case.load()
    assert (model.shape.context_tokens, model.shape.flash_attention) == (3072, False)
    assert text_of(await answer(model, ask("Hello!"))) == HELLO
    assert len((await double.state())["loads"]) == before
    assert [instance["id"] for instance in await instances_of(double)] == [instance_id]


async def test_what_somebody_else_loaded_too_small_is_loaded_anew(double, case):
    await load_in_the_app(double, context_length=512)
    await load_in_the_app(double, context_length=256)
    model = await case.load()
    assert await contexts_of(double) == [2048]
    assert model.shape.context_tokens == 2048


async def test_closing_leaves_what_somebody_else_loaded(double):
    async with opened(double) as engine:
        case = await case_of(double, engine)
        await load_in_the_app(double)
        model = await case.load()
    assert model.is_gone
    assert len(await instances_of(double)) == 1


async def test_closing_unloads_what_the_engine_loaded(double):
    async with opened(double) as engine:
        case = await case_of(double, engine)
        model = await case.load()
    assert model.is_gone
    assert await instances_of(double) == []
    with pytest.raises(ShuttingDown):
        await case.load()


async def test_a_load_of_somebody_else_at_the_same_time_wins(double, case):
    await double.arm("hang_load")
    load = asyncio.create_task(case.load())
    path = "/api/v1/models/load"
    before = len(await requests_of(double, path))
    await until(lambda: _armed_is_empty(double), "the load hangs")
    other = await load_in_the_app(double, context_length=2304)
    await double.release()
    model = await load
    assert before <= 1 or len(await requests_of(double, path)) > before
    assert [instance["id"] for instance in await instances_of(double)] == [other]
    assert model.shape.context_tokens == 2304
    assert text_of(await answer(model, ask("Hello!"))) == HELLO


async def _armed_is_empty(double):
    return not (await double.state())["armed"]


async def test_residents_are_all_instances(double, engine, case):
    await load_in_the_app(double, context_length=512)
    await engine.refresh()
    assert [(each.model_id, each.context_tokens) for each in await engine.residents()] == [("pocket", 512)]
    model = await case.load()
    assert [(each.model_id, each.context_tokens) for each in await engine.residents()] == [("pocket", 2048)]
    await model.unload()
    assert list(await engine.residents()) == []


class ScriptedRest:
    """A server whose lists come when the test says so."""

    def __init__(self, *listings):
        self.asked = asyncio.Event()
        self.answers = [asyncio.get_running_loop().create_future() for _ in listings]
        self._listings = list(listings)
        self._number = 0

    async def list(self):
        number, self._number = self._number, self._number + 1
        self.asked.set()
        await self.answers[number]
        return self._listings[number]


def listing_with(*instances):
    models = [{"key": "pocket", "loaded_instances": instances}]
    return read_v1(json.dumps({"models": models}).encode())


async def test_a_list_that_is_older_than_a_load_ends_nothing():
    there = listing_with({"id": "pocket", "config": {"context_length": 2048}})
    rest = ScriptedRest(listing_with(), there, listing_with())
    instances = Instances(load_seconds=1.0, on_listing=lambda _: None)
    late = asyncio.create_task(instances.look(rest))
    await rest.asked.wait()
    rest.answers[1].set_result(None)
    use = await instances.acquire(rest, "pocket", SHAPE, ttl_seconds=0)
    rest.answers[0].set_result(None)
    await late
    assert not use.is_over
    rest.answers[2].set_result(None)
    await instances.look(rest)
    assert use.is_over


# What goes wrong.


async def test_a_load_that_was_cancelled_leaves_nothing(double, engine, case):
    await double.arm("hang_load")
    load = asyncio.create_task(case.load())
    await until(lambda: _armed_is_empty(double), "the load hangs")
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    await double.release()
    # The next load waits for the one before.
    model = await case.load(context_tokens=1024)
    assert await contexts_of(double) == [1024]
    await engine.close()
    assert model.is_gone
    assert await instances_of(double) == []


async def test_a_load_that_fails_says_why(double, case):
    await double.arm("fail_load")
    with pytest.raises(ModelLoadFailed, match="Failed to load model"):
        await case.load()
    assert text_of(await answer(await case.load(), ask("Hello!"))) == HELLO


async def test_a_load_that_takes_too_long_has_failed(double):
    async with opened(double, load_timeout_seconds=0.3) as engine:
        case = await case_of(double, engine)
        await double.arm("hang_load")
        with pytest.raises(ModelLoadFailed, match=r"within 0\.3 seconds"):
            await case.load()
        await double.release()

        async def is_there():
            return bool(await instances_of(double))

        # LM Studio goes on with it; what comes of it is used by the next load.
        await until(is_there, "the load came to its end")
        loads = len((await double.state())["loads"])
        await case.load()
        assert len((await double.state())["loads"]) == loads
    assert await instances_of(double) == []


async def test_what_comes_of_a_load_that_took_too_long_is_the_daemons_to_unload(double):
    async with opened(double, load_timeout_seconds=0.3) as engine:
        case = await case_of(double, engine)
        await double.arm("hang_load")
        with pytest.raises(ModelLoadFailed):
            await case.load()
        await double.release()

        async def is_there():
            return bool(await instances_of(double))

        await until(is_there, "the load came to its end")
        await engine.refresh()
    assert await instances_of(double) == []


async def test_a_model_that_is_not_there_any_more_is_not_loaded(double, case):
    path = next(double.models_folder.rglob("*.gguf"))
    hidden = path.rename(path.with_suffix(".part"))
    try:
        with pytest.raises(ModelNotFound):
            await case.load()
    finally:
        hidden.rename(path)


async def test_an_instance_that_somebody_unloads_is_noticed_by_a_look(double, engine, case):
    model = await case.load()
    waiting = asyncio.create_task(model.wait_gone())
    await double.client.post("/api/v1/models/unload", json={"instance_id": "pocket"})
    await engine.refresh()
    assert "unloaded" in await waiting
    assert model.is_gone


async def test_a_request_never_loads_what_somebody_unloaded(double, case):
    model = await case.load()
    loads = len((await double.state())["loads"])
    await double.client.post("/api/v1/models/unload", json={"instance_id": "pocket"})
    await asyncio.sleep(FRESH_SECONDS)
    with pytest.raises(EngineUnreachable, match="unloaded") as failure:
        await answer(model, ask("Hello!"))
    assert not failure.value.served
    assert len((await double.state())["loads"]) == loads


async def test_an_instance_that_crashes_says_so(double, case):
    model = await case.load()
    async with aclosing(model.generate(ask("Count from 1 to 79."), TALK)) as events:
        await anext(events)
        await double.crash("pocket")
        with pytest.raises(EngineUnreachable, match="crashed"):
            async for _ in events:
                pass
    await until(lambda: _is_gone(case, model), "the crash is noticed")
    assert text_of(await answer(await case.load(), ask("Hello!"))) == HELLO


async def _is_gone(case, model):
    await case.engine.refresh()
    return model.is_gone


async def test_a_server_that_dies_takes_its_models_with_it():
    async with running_lmstudio() as double, opened(double) as engine:
        case = await case_of(double, engine)
        model = await case.load()
        await double.die()
        with pytest.raises(EngineUnreachable) as failure:
            await answer(model, ask("Hello!"))
        assert not failure.value.served
        await engine.refresh()
        assert model.is_gone
        assert "server is gone" in await model.wait_gone()
        assert engine.status().state is EngineState.UNREACHABLE
        assert list(await engine.models()) == []
        with pytest.raises(EngineUnreachable) as refused:
            await case.load()
        assert not refused.value.served


async def test_a_prompt_that_outgrows_the_context_is_told_with_its_count(case):
    model = await case.load(context_tokens=256)
    with pytest.raises(ContextTooLong) as refusal:
        await answer(model, ask("hello " * 600))
    assert refusal.value.prompt_tokens > 600
    assert refusal.value.context_tokens == 256
