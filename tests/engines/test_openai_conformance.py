"""Servers of OpenAI's dialect pass the suite that every engine passes, as far as they can what it asks."""

import json
from contextlib import aclosing, asynccontextmanager

import httpx
import pytest

from autotuned.core.chat import (
    RawPrompt,
    ResponseFormat,
    ResponseFormatKind,
    ToolChoice,
    ToolChoiceMode,
)
from autotuned.core.engine import EngineState
from autotuned.core.errors import Unsupported
from tests.engines.openai_case import engine_of
from tests.engines.shapes import SHAPE
from tests.fakes.openai_servers import MLX_LM_IS_INSTALLED, running_llamacpp, running_mlx_lm
from tests.suites.engine_answers import EngineAnswers
from tests.suites.engine_case import (
    CITY_SCHEMA,
    WEATHER,
    EngineCase,
    answer,
    ask,
    assistant,
    finish_of,
    text_of,
)
from tests.suites.engine_suite import EngineSuite


async def case_of(engine, active_requests, **tells):
    """A case with the one model that the engine lists."""
    (entry,) = await engine.models()
    return EngineCase(
        engine=engine,
        entry=entry,
        shape=SHAPE,
        active_requests=active_requests,
        tells_memory=False,
        **tells,
    )


class OpenaiSuite(EngineSuite):
    """What none of these servers can do for us is refused."""

    async def test_a_reply_that_was_cut_does_not_go_on(self, model):
        with pytest.raises(Unsupported, match="cannot go on"):
            await answer(model, ask("Tell me a story.", reply_so_far="Once upon a time"))

    async def test_no_state_is_saved(self, model):
        assert not model.holds("talk")
        with pytest.raises(Unsupported):
            await model.save_prefix("talk", "state.bin")
        with pytest.raises(Unsupported):
            await model.restore_prefix("talk", "state.bin")

    async def test_nothing_of_this_machine_is_taken(self, case, model):
        assert not case.engine.capabilities().is_local
        assert model.footprint.total_bytes == 0
        assert await case.engine.residents() == ()


@asynccontextmanager
async def llamacpp_case(api_key):
    """A llama.cpp of its own for each test, so that nothing is cached."""
    async with running_llamacpp(api_key=api_key) as server:

        async def busy_slots(_model):
            async with httpx.AsyncClient(trust_env=False, headers=server.headers) as client:
                slots = json.loads((await client.get(f"{server.url}/slots")).content)
            return sum(slot["is_processing"] for slot in slots)

        words = "token=env:LAB_TOKEN" if api_key else ""
        engine = engine_of(server.url, words=words, environment={"LAB_TOKEN": api_key or ""})
        yield await case_of(engine, busy_slots)
        await engine.close()


class TestLlamacppServer(OpenaiSuite):
    @pytest.fixture
    async def case(self):
        async with llamacpp_case(None) as case:
            yield case


class TestLlamacppServerWithKey(EngineAnswers):
    @pytest.fixture
    async def case(self):
        async with llamacpp_case("s3cret") as case:
            yield case


@pytest.fixture(scope="module")
async def mlx_lm():
    """One for all tests: it takes seconds to start."""
    async with running_mlx_lm() as server:
        yield server


@pytest.mark.skipif(not MLX_LM_IS_INSTALLED, reason="mlx-lm is not installed")
class TestMlxLmServer(OpenaiSuite):
    @pytest.fixture
    async def case(self, mlx_lm):
        engine = engine_of(mlx_lm.base_url, words="slots=1")

        async def active(_model):
            """The server tells nothing of what it does."""
            return sum(each.active_count for each in engine._servers)

        yield await case_of(engine, active, tells_times=False)
        await engine.close()

    async def test_an_answer_that_was_begun_goes_on(self, model):
        """To this server a message that was begun is one that was ended: it begins anew."""
        events = await answer(model, ask("What is the capital of France?", assistant("The capital of")))
        assert text_of(events) == "The capital of France is Paris."

    async def test_a_prefill_says_nothing_and_leaves_the_prompt_in_the_cache(self, model):
        request = ask("Repeat: " + "one two three " * 30, max_reply_tokens=1)
        async with aclosing(model.prefill(request, "talk")) as events:
            assert [event async for event in events] == []
        usage = finish_of(await answer(model, request)).usage
        assert usage.cached_tokens == usage.prompt_tokens - 1

    async def test_what_it_would_pass_over_is_refused(self, case, model):
        able = case.engine.capabilities()
        declared = (
            able.json_schema,
            able.tool_choice,
            able.images,
            able.exact_token_counts,
            able.logprobs,
        )
        assert not any(declared)
        with pytest.raises(Unsupported, match="log probabilities"):
            await answer(model, ask("Hello!", top_logprobs_count=1))
        wanted = ResponseFormat(ResponseFormatKind.JSON_SCHEMA, CITY_SCHEMA)
        with pytest.raises(Unsupported, match="response format"):
            await answer(model, ask("Hello!", response_format=wanted))
        for mode in (ToolChoiceMode.NONE, ToolChoiceMode.REQUIRED, ToolChoiceMode.NAMED):
            choice = ToolChoice(mode, "get_weather")
            with pytest.raises(Unsupported, match="tool"):
                await answer(model, ask("Hello!", tools=(WEATHER,), tool_choice=choice))
        with pytest.raises(Unsupported, match="counts no tokens"):
            await model.count_tokens("hello")
        with pytest.raises(Unsupported, match="middle"):
            await answer(model, type(ask("x"))(model="pocket", input=RawPrompt("a", "b")))


async def test_a_real_server_that_dies_is_replaced_by_its_equal():
    question = ask("What is the capital of France?")
    async with running_llamacpp() as first, running_llamacpp(slots_count=2) as second:
        engine = engine_of(first.url, second.base_url)
        (entry,) = await engine.models()
        model = await engine.load(entry, SHAPE, lambda _: None)
        assert model.shape.slots_count == 3
        assert text_of(await answer(model, question, "one")) == "The capital of France is Paris."
        first.process.kill()
        await first.process.wait()
        for conversation in ("one", "other", "third"):
            events = await answer(model, question, conversation)
            assert text_of(events) == "The capital of France is Paris."
        await engine.refresh()
        assert engine.status().state is EngineState.READY
        await engine.close()
