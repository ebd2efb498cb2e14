"""The LM Studio adapter on a server before 0.4.0, which loads with the first request and never unloads."""

from dataclasses import replace

import pytest

from autotuned.core.chat import RawPrompt
from autotuned.core.engine import KnobScope, Severity
from autotuned.core.errors import ContextTooLong, ModelLoadFailed
from autotuned.core.generation import FinishReason
from autotuned.core.settings import LmstudioSettings
from autotuned.engines.lmstudio.engine import LmstudioEngine
from tests.engines.conftest import SystemClock
from tests.engines.lmstudio_case import case_of, instances_of, opened, shared_lmstudio, with_own_client
from tests.engines.processes import until
from tests.fakes.lmstudio.start import running_lmstudio
from tests.suites.engine_answers import EngineAnswers
from tests.suites.engine_case import answer, ask, finish_of, text_of
from tests.suites.engine_structure import EngineStructure

HELLO = "Hello! How can I help you?"


@pytest.fixture(scope="module")
def double():
    with shared_lmstudio(rest_v1=False, context_tokens=2048) as running:
        yield running


@pytest.fixture
async def case(double):
    async with with_own_client(double) as own, opened(own) as engine:
        yield await case_of(own, engine)


class TestOldLmstudioDouble(EngineAnswers, EngineStructure):
    """The parts of the suite that ask and answer."""

    @pytest.fixture
    def case(self, case):
        return case


async def test_it_says_what_it_cannot_do(case):
    knobs = case.engine.capabilities().knobs
    assert (knobs.context_tokens, knobs.flash_attention) == (KnobScope.NONE, KnobScope.NONE)
    assert knobs.keep_alive is KnobScope.LOAD
    [finding] = case.engine.status().findings
    assert (finding.code, finding.severity) == ("lmstudio-old", Severity.WARNING)
    assert "Update" in finding.advice


async def test_the_context_is_the_servers(case):
    model = await case.load(context_tokens=512)
    assert model.shape.context_tokens == 2048
    assert "context_tokens" not in model.shape.assumed
    assert {"flash_attention", "slots_count", "batch_tokens"} <= set(model.shape.assumed)
    with pytest.raises(ContextTooLong) as refusal:
        await answer(model, ask("hello " * 3000))
    assert refusal.value.context_tokens == 2048


async def test_a_raw_prompt_has_times_and_counts(case):
    model = await case.load()
    prompt = RawPrompt("<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n")
    request = ask("x", max_reply_tokens=3)
    events = await answer(model, replace(request, input=prompt))
    finish = finish_of(events)
    assert finish.finish_reason is FinishReason.LENGTH
    assert finish.usage.prompt_tokens > 5
    assert finish.decode_seconds > 0.0


async def test_the_keep_alive_is_the_time_to_live_of_the_load():
    async with running_lmstudio(rest_v1=False) as double:
        engine = LmstudioEngine(
            settings=LmstudioSettings(url=double.url),
            clock=SystemClock(),
            keep_alive_seconds=1.0,
            environment={},
        )
        await engine.refresh()
        case = await case_of(double, engine)
        try:
            model = await case.load()
            assert [instance["ttl_seconds"] for instance in await instances_of(double)] == [1]
            assert text_of(await answer(model, ask("Hello!"))) == HELLO

            async def is_gone():
                await engine.refresh()
                return model.is_gone

            await until(is_gone, "the model left after its time")
            assert await instances_of(double) == []
        finally:
            await engine.close()


async def test_what_the_server_does_not_load_by_itself_says_what_to_do():
    async with running_lmstudio(rest_v1=False, jit_loading=False) as double, opened(double) as engine:
        case = await case_of(double, engine)
        with pytest.raises(ModelLoadFailed, match="load it in the app"):
            await case.load()
