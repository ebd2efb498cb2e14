"""Every engine, through the official openai package and from the command line: one course for all of them."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import autotune
import openai
import pexpect
import pytest

from tests.e2e.conftest import PATIENCE_SECONDS, RunningDaemon, running_daemon, short_home
from tests.e2e.engine_talk import (
    ADA,
    ASKED,
    BEGINNING,
    COUNT,
    COUNTS_NOTHING_CACHED,
    FRANCE,
    NAME,
    NOTE,
    READY,
    REFUSED,
    STORY,
    SUNNY,
    SYSTEM,
    TOOLS,
    WEATHER,
    Ctl,
    braked,
)
from tests.e2e.test_e2e_openai import Shim
from tests.engine_house import ENGINES, MODELS, House, opened_house, qualified

ATTEMPTS = 5
SLOW_BY_ITSELF = frozenset({"mlx", "gpu"})
"""On a CPU, MLX takes a second or more for a story."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A daemon with every engine, an HTTP server before it, and a client of that."""

    house: House
    daemon: RunningDaemon
    ai: openai.OpenAI

    def ask(self, engine: str, messages: list[Any], **options: Any) -> Any:
        """A greedy answer of one engine."""
        model = qualified(engine)
        return self.ai.chat.completions.create(model=model, messages=messages, temperature=0, **options)

    def brake(self, engine: str) -> contextlib.AbstractContextManager[None]:
        """Slows the engine down so far that its answers can be cut."""
        if engine in SLOW_BY_ITSELF:
            return contextlib.nullcontext()
        return braked(self.house.computing(engine, self.daemon.process.pid))

    def cut(self, engine: str, talk: list[dict[str, Any]]) -> str:
        """What came of an answer before it was given up. One that ended before that is asked for again."""
        for _ in range(ATTEMPTS):
            seen = len(self.finish_reasons())
            with self.brake(engine):
                stream = self.ask(engine, talk, stream=True)
                pieces = (chunk.choices[0].delta.content for chunk in stream if chunk.choices)
                begun = next(piece for piece in pieces if piece)
                stream.close()
                if self.finish_reason_after(seen) == "cancelled":
                    return begun
        pytest.fail("no answer was given up")

    def finish_reasons(self) -> list[str]:
        """Those of all requests that the daemon recorded, in their order."""
        path = f"{self.daemon.environment['AUTOTUNE_DATA_DIR']}/autotune.db"
        with contextlib.closing(sqlite3.connect(path)) as db:
            return [reason for (reason,) in db.execute("SELECT finish_reason FROM requests ORDER BY id")]

    def finish_reason_after(self, seen: int) -> str:
        """Waits for the record of one more, and until nothing runs."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with autotune.Client(self.daemon.address) as client:
            while len(found := self.finish_reasons()) == seen or client.snapshot().active_requests_count:
                assert time.monotonic() < deadline, "the answer was not recorded"
                time.sleep(0.02)
        return found[-1]


@contextlib.contextmanager
def shim_of(daemon: RunningDaemon) -> Iterator[Shim]:
    shim = Shim(daemon)
    try:
        yield shim
    finally:
        shim.stop()


@pytest.fixture(scope="module")
def setting() -> Iterator[Setting]:
    with (
        short_home() as folder,
        opened_house(folder) as (house, _),
        running_daemon(**house.environment) as daemon,
        shim_of(daemon) as shim,
        openai.OpenAI(base_url=shim.url, api_key="unused", max_retries=0, timeout=PATIENCE_SECONDS) as ai,
    ):
        yield Setting(house, daemon, ai)


@pytest.fixture
def ctl(setting: Setting) -> Ctl:
    return Ctl(setting.daemon)


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.mark.parametrize("engine", ENGINES)
def test_six_turns_with_a_tool_and_a_cancel_have_the_same_course(setting, engine):
    talk: list[Any] = [said("system", SYSTEM)]
    for question, expected in (FRANCE, ADA, NAME):
        talk.append(said("user", question))
        answer = setting.ask(engine, talk)
        choice = answer.choices[0]
        assert (choice.message.content, choice.finish_reason) == (expected, "stop")
        assert answer.model_extra["autotune"]["engine"] == engine
        assert answer.usage.prompt_tokens > len(talk)
        assert answer.usage.completion_tokens > 1
        talk.append(said("assistant", expected))
    details = answer.usage.prompt_tokens_details
    if engine in COUNTS_NOTHING_CACHED:
        assert details is None
    else:
        assert details.cached_tokens > 0

    talk.append(said("user", WEATHER))
    asking = setting.ask(engine, talk, tools=TOOLS)
    assert asking.choices[0].finish_reason == "tool_calls"
    [call] = asking.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    assert call.id
    talk += [
        asking.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": '{"sky": "sunny", "celsius": 21}'},
    ]
    assert setting.ask(engine, talk, tools=TOOLS).choices[0].message.content == SUNNY
    talk.append(said("assistant", SUNNY))

    talk.append(said("user", STORY))
    begun = setting.cut(engine, talk)
    assert BEGINNING.startswith(begun[: len(BEGINNING)])
    talk.append(said("assistant", begun))

    talk.append(said("user", COUNT[0]))
    chunks = list(setting.ask(engine, talk, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == COUNT[1]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens > 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_note_in_the_system_prompt_is_read(setting, engine):
    answer = setting.ask(engine, [said("system", NOTE), said("user", "Where do I live?")])
    assert answer.choices[0].message.content == "You live in Oslo."


@pytest.mark.parametrize("feature", ASKED)
@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_asked_is_done_or_refused_as_the_table_says(setting, engine, feature):
    question = WEATHER if "tool" in feature else FRANCE[0]
    options = {"max_tokens": 60} | ASKED[feature]
    reason = REFUSED.get((engine, feature))
    if reason is not None:
        with pytest.raises(openai.BadRequestError) as refusal:
            setting.ask(engine, [said("user", question)], **options)
        assert refusal.value.code == "unsupported"
        assert reason in refusal.value.message
        assert engine in refusal.value.message
        assert setting.ask(engine, [said("user", FRANCE[0])]).choices[0].message.content == FRANCE[1]
        return
    choice = setting.ask(engine, [said("user", question)], **options).choices[0]
    done = DONE[feature](choice)
    assert done, choice


DONE = {
    "a schema": lambda choice: json.loads(choice.message.content)["city"] in {"Paris", "Rome"},
    "a tool that must be called": lambda choice: (
        [call.function.name for call in choice.message.tool_calls] == ["get_weather"]
    ),
    "log probabilities": lambda choice: (
        "".join(token.token for token in choice.logprobs.content).startswith(FRANCE[1])
        and all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)
    ),
    "a bias": lambda choice: choice.message.content == FRANCE[1],
    "the least probability": lambda choice: choice.message.content == FRANCE[1],
    "a stop sequence": lambda choice: (
        (choice.message.content, choice.finish_reason) == ("The capital of France is ", "stop")
    ),
    "a seed": lambda choice: choice.message.content == FRANCE[1],
    "a limit": lambda choice: (
        choice.finish_reason == "length" and FRANCE[1].startswith(choice.message.content.rstrip())
    ),
}
"""How one sees that an engine did what was asked."""


@pytest.mark.parametrize("engine", ENGINES)
def test_one_question_from_the_command_line(ctl, engine):
    run = ctl("run", qualified(engine), FRANCE[0], "--temperature", "0")
    assert (run.returncode, run.stdout) == (0, FRANCE[1] + "\n"), run.stderr
    assert "why" in run.stderr
    answer = ctl.json("chat", FRANCE[0], "-m", MODELS[engine], "--engine", engine, "--temperature", "0")
    assert (answer["text"], answer["finish_reason"]) == (FRANCE[1], "stop")
    assert answer["engine"] == engine
    assert answer["usage"]["reply_tokens"] > 1
    # The prompt was in the cache.
    assert (answer["usage"]["cached_tokens"] is None) == (engine in COUNTS_NOTHING_CACHED)


def cut_at_terminal(setting, engine, child) -> bool:
    """Whether Ctrl-C stopped an answer; it may have ended before."""
    with setting.brake(engine):
        child.sendline(STORY)
        child.expect_exact("Once upon")
        child.sendintr()
        is_cut = child.expect_exact(["Stopped; what came is kept.", "TTFT"]) == 0
    child.expect_exact(READY)
    return is_cut


@pytest.mark.parametrize("engine", ENGINES)
def test_six_turns_and_ctrl_c_at_a_terminal(setting, ctl, engine):
    model = ("-m", MODELS[engine], "--engine", engine)
    with ctl.terminal("chat", *model, "-s", SYSTEM, "--temperature", "0") as child:
        child.expect(rf"Talking to [^;]+ on {engine}; /help")
        child.expect_exact(READY)
        for question, expected in (FRANCE, ADA, NAME, COUNT):
            child.sendline(question)
            child.expect_exact(expected)
            child.expect(r"TTFT .* prompt [\d,]+ tokens")
            child.expect_exact(READY)
        assert any(cut_at_terminal(setting, engine, child) for _ in range(ATTEMPTS))
        child.sendline(FRANCE[0])
        child.expect_exact(FRANCE[1])
        child.expect_exact(READY)
        child.sendline("/quit")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0


def test_an_engine_that_does_not_exist_is_a_sentence_that_names_those_that_do(ctl):
    done = ctl("chat", "-m", "pocket", "--engine", "olama", "hi", "--json")
    assert done.returncode == 5
    error = json.loads(done.stderr)["error"]
    assert error["reason"] == "FIELD_INVALID"
    assert re.search(r'no engine "olama".*llamacpp.*ollama', error["message"])
