"""Kills and hangs of what runs models, against one running daemon that must live through all of them.

``cause_accidents`` is the driver: an end-to-end test has it cause some dozens, the benchmark a thousand. What is
struck and when is drawn from a seed. Each engine has its accidents one after the other, beside those of the
others, and its copies of the model take turns: the daemon waits longer and longer before it loads one that dies
again and again, which a long run avoids with so many copies that each lives for a minute between its accidents.
Every request must end with its whole answer or with a typed error before its deadline, and the engine
must answer again once what was killed has come back.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from enum import Enum

import psutil
from autotune.aio_client import AsyncClient
from autotune.chat import ReplyBuilder, chat_request
from autotune.errors import AutotuneError

from tests.engine_house import House
from tests.fakes.serving import is_alive

STORY = "Tell me a story."
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
SILENCE_SECONDS = 1.5
LOAD_SECONDS = {"mlx": 25.0, "gpu": 25.0}
"""How long a load may take, where it takes longer than ``USUAL_LOAD_SECONDS``: importing MLX takes seconds."""
USUAL_LOAD_SECONDS = 4.0
PAUSE_SECONDS = 0.1
"""Between a refusal and the next attempt."""
# A look at an engine that hangs, a pause after repeated crashes, and a machine that does other things, too.
SLACK_SECONDS = 12.0
WORKERS = ("llamacpp", "mlx")
"""The engines whose processes are the daemon's own."""
WEIGHTS = {"mlx": 1, "gpu": 1}
"""How often an engine is struck in comparison with the others, which have ``USUAL_WEIGHT``: MLX starts slowly."""
USUAL_WEIGHT = 5
ALLOWED_REASONS = frozenset({"ENGINE_UNREACHABLE", "MODEL_LOAD_FAILED"})

ENVIRONMENT = {
    f"AUTOTUNE_{section}_{name}_TIMEOUT_SECONDS": str(seconds)
    for section, load_seconds in (
        ("LLAMACPP", USUAL_LOAD_SECONDS),
        ("MLX", LOAD_SECONDS["mlx"]),
        ("OLLAMA", USUAL_LOAD_SECONDS),
        ("LMSTUDIO", USUAL_LOAD_SECONDS),
        ("OPENAI", 0.0),
    )
    for name, seconds in (("SILENCE", SILENCE_SECONDS), ("LOAD", load_seconds))
    if seconds
}
"""With what the daemon has to be started."""


class Moment(Enum):
    """When it happens."""

    BEFORE_HEADERS = "before the headers"
    MID_STREAM = "in mid-stream"
    LOADING = "while it loads"


class Kind(Enum):
    """What happens."""

    KILL = signal.SIGKILL
    HANG = signal.SIGSTOP


@dataclass(frozen=True, slots=True, kw_only=True)
class Accident:
    """One blow. ``strikes_child``: what a server started is struck, where it started something."""

    number: int
    engine: str
    model: str
    moment: Moment
    kind: Kind
    strikes_child: bool
    delay_seconds: float

    def __str__(self) -> str:
        what = "a child" if self.strikes_child else "the process"
        return (
            f"accident {self.number}: {self.kind.name} of {what} of {self.engine}/{self.model} "
            f"{self.moment.value}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the request of an accident ended. ``reason`` is "" where the whole answer came.

    ``recovery_seconds``: from the end of the request, or of the restart of what was killed, to the next whole
    answer; ``refusals``: typed refusals until then.
    """

    accident: Accident
    reason: str
    seconds: float
    recovery_seconds: float
    refusals_count: int


@dataclass(frozen=True, slots=True)
class Report:
    """All accidents of a run, in the order in which they were drawn."""

    outcomes: tuple[Outcome, ...]

    @property
    def reasons(self) -> Counter[str]:
        """How often requests ended how; "" is a whole answer."""
        return Counter(outcome.reason for outcome in self.outcomes)


def draw(*, count: int, seed: int, models: Mapping[str, Sequence[str]]) -> list[Accident]:
    """The accidents of a seed. ``models``: those of each engine, which are struck in turn."""
    rng = random.Random(seed)  # noqa: S311 - chance, not a secret
    engines = list(models)
    weights = [WEIGHTS.get(engine, USUAL_WEIGHT) for engine in engines]
    turns: Counter[str] = Counter()
    accidents = []
    for number in range(count):
        (engine,) = rng.choices(engines, weights)
        accidents.append(
            Accident(
                number=number,
                engine=engine,
                model=models[engine][turns[engine] % len(models[engine])],
                moment=rng.choice(list(Moment)),
                kind=rng.choice(list(Kind)),
                strikes_child=rng.random() < 0.5,
                delay_seconds=rng.random() * 0.05,
            )
        )
        turns[engine] += 1
    return accidents


async def cause_accidents(
    *,
    count: int,
    seed: int,
    models: Mapping[str, Sequence[str]],
    house: House,
    address: str,
    daemon_id: int,
    slack_seconds: float = SLACK_SECONDS,
) -> Report:
    """Draws accidents, causes them, and holds the daemon to what it owes; raises AssertionError else.

    ``models``: by engine; all of them should be in memory. ``daemon_id`` is the daemon's process.
    ``slack_seconds``: what a request may take beside a load and a silence.
    """
    accidents = draw(count=count, seed=seed, models=models)
    async with AsyncClient(address) as client:
        lanes = [
            _Lane(
                client=client,
                house=house,
                daemon_id=daemon_id,
                accidents=[each for each in accidents if each.engine == engine],
                deadline_seconds=usual_seconds(engine) + slack_seconds,
            )
            for engine in models
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(lane.run()) for lane in lanes]
    outcomes = [outcome for task in tasks for outcome in task.result()]
    return Report(tuple(sorted(outcomes, key=lambda outcome: outcome.accident.number)))


def usual_seconds(engine: str) -> float:
    """A load and a silence that come to their ends."""
    return LOAD_SECONDS.get(engine, USUAL_LOAD_SECONDS) + SILENCE_SECONDS


async def ask(client: AsyncClient, engine: str, model: str, question: str = QUESTION) -> str:
    """The answer of one model on one engine. Raises AutotuneError."""
    reply = await client.chat(question, model=model, engine=engine, temperature=0, store=False)
    return reply.text


class _Lane:
    """The accidents of one engine."""

    def __init__(
        self,
        *,
        client: AsyncClient,
        house: House,
        daemon_id: int,
        accidents: Sequence[Accident],
        deadline_seconds: float,
    ) -> None:
        self._client = client
        self._house = house
        self._daemon_id = daemon_id
        self._accidents = accidents
        self._deadline_seconds = deadline_seconds
        self._story = ""

    async def run(self) -> list[Outcome]:
        """One after the other."""
        outcomes = []
        for accident in self._accidents:
            if not self._story:
                self._story = await ask(self._client, accident.engine, accident.model, STORY)
            outcomes.append(await self._happen(accident))
        return outcomes

    async def _happen(self, accident: Accident) -> Outcome:
        if accident.moment is Moment.LOADING:
            await self._client.unload_model(accident.model, engine=accident.engine)
        before = set(self._candidates(accident))
        # Asked for before anything is struck: a daemon that waits for a hung engine may be slow to tell.
        there = None
        if accident.moment is not Moment.LOADING:
            there = await self._process(accident)
            assert there is not None, f"{accident}: nothing is there to be struck"
        struck: list[psutil.Process] = []
        began_at = time.monotonic()
        if there is not None and accident.moment is Moment.BEFORE_HEADERS:
            struck.append(_strike(there, accident.kind))
        striking: asyncio.Task[None] | None = None
        if accident.moment is Moment.LOADING:
            striking = asyncio.create_task(self._strike_load(accident, before, struck))
        try:
            text, reason = await self._request(accident, there, struck)
        finally:
            if striking is not None:
                striking.cancel()
                with suppress(asyncio.CancelledError):
                    await striking
        seconds = time.monotonic() - began_at
        assert seconds < self._deadline_seconds, f"{accident}: the request took {seconds:.1f} s"
        if reason:
            assert reason in ALLOWED_REASONS, f"{accident}: ended with {reason}"
            assert self._story.startswith(text), f"{accident}: said {text!r}"
        else:
            assert text == self._story, f"{accident}: said {text!r}"
        await self._mend(accident, struck)
        mended_at = time.monotonic()
        refusals_count = await self._recover(accident, mended_at + self._deadline_seconds)
        return Outcome(
            accident=accident,
            reason=reason,
            seconds=seconds,
            recovery_seconds=time.monotonic() - mended_at,
            refusals_count=refusals_count,
        )

    async def _request(
        self, accident: Accident, there: psutil.Process | None, struck: list[psutil.Process]
    ) -> tuple[str, str]:
        """The text that came, and the reason of the error that ended it, if one did."""
        builder = ReplyBuilder()
        request = chat_request(
            STORY, model=accident.model, engine=accident.engine, temperature=0, store=False
        )
        try:
            async with aclosing(self._client.generate(request, self._deadline_seconds)) as events:
                async for event in events:
                    piece = builder.add(event)
                    if piece and accident.moment is Moment.MID_STREAM and there is not None and not struck:
                        struck.append(_strike(there, accident.kind))
        except AutotuneError as error:
            return builder.text, error.reason
        assert builder.reply().finish_reason == "stop", f"{accident}: the stream ended without an end"
        return builder.text, ""

    async def _strike_load(
        self, accident: Accident, before: set[psutil.Process], struck: list[psutil.Process]
    ) -> None:
        """Strikes what a load starts as soon as it is there, or a server a moment after it was asked."""
        if accident.engine in WORKERS or accident.strikes_child:
            # Servers that start nothing are struck themselves.
            until = time.monotonic() + (self._deadline_seconds if accident.engine in WORKERS else 1)
            while time.monotonic() < until:
                new = [each for each in self._candidates(accident) if each not in before and is_alive(each)]
                if new:
                    await asyncio.sleep(accident.delay_seconds)
                    struck.append(_strike(new[0], accident.kind))
                    return
                await asyncio.sleep(0.01)
        else:
            await asyncio.sleep(accident.delay_seconds)
        if accident.engine not in WORKERS:
            struck.append(_strike(self._house.server_process(accident.engine), accident.kind))

    async def _process(self, accident: Accident) -> psutil.Process | None:
        """What is struck while the model is in memory."""
        if accident.engine in WORKERS:
            running = await self._client.list_running_models()
            for model in running:
                if (model.engine, model.id) == (accident.engine, accident.model) and model.process_id:
                    return psutil.Process(model.process_id)
            return None
        children = self._candidates(accident)
        if accident.strikes_child and children:
            return children[accident.number % len(children)]
        return self._house.server_process(accident.engine)

    def _candidates(self, accident: Accident) -> list[psutil.Process]:
        return self._house.children(accident.engine, self._daemon_id)

    async def _mend(self, accident: Accident, struck: Sequence[psutil.Process]) -> None:
        """A server that was killed is started again, and what hangs goes on; workers are the daemon's affair."""
        if accident.engine in WORKERS:
            return
        for process in struck:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        place = self._house.places[accident.engine]
        server = place.server.process
        if accident.kind is Kind.KILL and any(process.pid == server.pid for process in struck):
            await server.wait()
            await place.start()

    async def _recover(self, accident: Accident, until: float) -> int:
        """Asks until the engine answers again; returns how often it refused before."""
        for refusals_count in itertools.count():
            text, refusal = await self._answer(accident)
            if refusal is None:
                assert text == ANSWER, f"{accident}: afterwards it said {text!r}"
                return refusals_count
            assert refusal.reason in ALLOWED_REASONS, f"{accident}: refused with {refusal.reason}, {refusal}"
            assert time.monotonic() < until, f"{accident}: it does not come back: {refusal}"
            await asyncio.sleep(PAUSE_SECONDS)
        raise AssertionError

    async def _answer(self, accident: Accident) -> tuple[str, AutotuneError | None]:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await ask(self._client, accident.engine, accident.model), None
        except AutotuneError as error:
            return "", error


def _strike(process: psutil.Process, kind: Kind) -> psutil.Process:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(kind.value)
    return process
