"""One conversation that every engine must carry on alike, and the table of what some of them refuse."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pexpect
import psutil

from tests.e2e.conftest import PATIENCE_SECONDS, RunningDaemon

SYSTEM = "You are a helpful assistant."
NOTE = "Relevant notes from earlier conversations:\n- I live in Oslo."
FRANCE = ("What is the capital of France?", "The capital of France is Paris.")
ADA = ("My name is Ada.", "Okay, I will remember that.")
NAME = ("What is my name?", "Your name is Ada.")
COUNT = ("Count from 1 to 9.", "1 2 3 4 5 6 7 8 9")
WEATHER = "What is the weather in Paris?"
SUNNY = "It is sunny and 21 degrees in Paris."
STORY = "Tell me a story."
BEGINNING = "Once upon a time"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    for name, description in (
        ("get_weather", "Get the weather in a city"),
        ("get_time", "Get the local time in a city"),
    )
]
CITY = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}

ASKED: dict[str, dict[str, Any]] = {
    "a schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": CITY}}
    },
    "a tool that must be called": {"tools": TOOLS, "tool_choice": "required"},
    "log probabilities": {"logprobs": True, "top_logprobs": 2},
    "a bias": {"logit_bias": {"300": -100}},
    "the least probability": {"extra_body": {"min_p": 0.05}},
    "a stop sequence": {"stop": ["Paris"]},
    "a seed": {"seed": 7},
    "a limit": {"max_tokens": 3},
}
"""Options of a request, beside its messages."""

REFUSED = {
    ("gpu", "a schema"): "structured answers are not supported",
    ("gpu", "a tool that must be called"): "a call of a tool cannot be required",
    ("ollama", "a tool that must be called"): "a call of a tool cannot be required",
    ("ollama", "a bias"): "logit_bias is not supported",
    ("gpu", "log probabilities"): "log probabilities are not supported",
    ("lmstudio", "log probabilities"): "log probabilities are not supported",
    ("lmstudio", "the least probability"): "min_p is not supported",
}
"""What an engine cannot do and says so; all else it does."""

COUNTS_NOTHING_CACHED = frozenset({"lmstudio"})
"""Engines that do not tell how much of a prompt they had already."""

CTL = (sys.executable, "-m", "autotunectl")
READY = "\x1b[?2004h"
"""What the line editor sends when it is ready."""


@dataclass(frozen=True, slots=True)
class Ctl:
    """autotunectl as a person or a script uses it, beside a daemon that runs."""

    daemon: RunningDaemon

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CTL, *arguments],
            env=self.daemon.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def json(self, *arguments: str) -> Any:
        """What it prints with ``--json``; anything else fails the test."""
        done = self(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    @contextmanager
    def terminal(self, *arguments: str) -> Iterator[pexpect.spawn]:
        """A command at a pseudo-terminal that answers no questions about its cursor."""
        child = pexpect.spawn(
            CTL[0],
            [*CTL[1:], *arguments],
            env={**self.daemon.environment, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
            encoding="utf-8",
            timeout=PATIENCE_SECONDS,
            dimensions=(40, 200),
        )
        try:
            yield child
        finally:
            child.close(force=True)


@contextmanager
def braked(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Lets processes run for a millisecond at a time, so that an answer takes a while."""
    ended = threading.Event()

    def brake() -> None:
        while not ended.wait(0.06):
            for process in processes:
                process.resume()
            ended.wait(0.001)
            for process in processes:
                process.suspend()

    thread = threading.Thread(target=brake, name="brake")
    for process in processes:  # at once: an answer may take no longer than the first round
        process.suspend()
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for process in processes:
            process.resume()
