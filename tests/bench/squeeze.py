"""Memory gets short while a model is used: what gives way, and whether anybody is killed.

A real daemon lives in a control group with a limit and no swap, with a model of random weights and
real size. First the limit is so low that the shape which a request wants does not fit, a lower one each
time. Then another program in the group takes memory step by step while a conversation goes
on, and lets it go again. Needs a group that can be made (root, or a delegated one); see
``tests.memory_groups``.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import autotune
import psutil
from autotune.chat import ReplyBuilder, chat_request
from autotune.errors import AutotuneError
from autotune.v1 import plan_pb2, system_service_pb2

from tests.bench import processes
from tests.bench.balloon import Balloon
from tests.bench.report import Row
from tests.engines.random_models import write_large_llama
from tests.memory_groups import CannotLimitMemory, MemoryGroup, memory_group

MIB = 1 << 20
MODEL = "squeezed"
PARAMETERS_COUNT = 100_000_000
MARGIN_MIB = 32
LIMITS_MIB = (1024, 640, 512, 448, 384, 320, 288, 256, 192)
SQUEEZED_LIMIT_MIB = 768
LEFT_MIB = 24
"""The other program takes whatever gets free, but for so much: with it memory is at its worst tier."""

STEP_MIB = 16
STEP_SECONDS = 1.0
LOOK_SECONDS = 0.5
FULL_TURNS = 4
"""So many turns were answered while nothing more got free: the other program has all that it can have."""

LONGEST_SECONDS = 300.0
RECOVERY_SECONDS = 15.0
PAUSE_SECONDS = 1.0
DOCUMENT = "The lighthouse keeper wrote down the wind, the ships and the weather. " * 40
QUESTION = "What did the keeper write down on the day of the storm, and what did the crew say about it?"
REPLY_PIECES = 24
STORM_FAULTS_PER_SECOND = 1000
SHORTAGE_CODES = frozenset({"reduced", "pressure", "shrunk", "kept-for-memory"})
"""Codes of reasons that say that something was given up because memory is short."""


@dataclass(frozen=True)
class Turn:
    """One request: what was planned for it, or the reason of its failure."""

    at_seconds: float
    failure: str = ""
    message: str = ""
    plan: plan_pb2.Plan = field(default_factory=plan_pb2.Plan)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    first_token_seconds: float = 0.0

    def line(self) -> str:
        if self.failure:
            return f"{self.failure}: {self.message}"
        shape = self.plan.shape
        kv_type = plan_pb2.KvCacheType.Name(shape.key_cache_type).removeprefix("KV_CACHE_TYPE_")
        return (
            f"{plan_pb2.PlanAction.Name(self.plan.action).removeprefix('PLAN_ACTION_').lower():6} "
            f"{shape.context_tokens:6} {kv_type:4} level {self.plan.reduction_level} "
            f"tier {tier_name(self.plan.pressure_tier):8} prompt {self.prompt_tokens} "
            f"cached {self.cached_tokens} first token {1000 * self.first_token_seconds:.0f} ms"
        )


@dataclass(frozen=True)
class Moment:
    """The group and the daemon at one time. ``reread_bytes`` are of files that had been dropped before."""

    at_seconds: float
    balloon_mib: int
    killed_count: int
    major_faults: int
    reread_bytes: int
    snapshot: system_service_pb2.Snapshot

    def line(self) -> str:
        models = [
            f"{model.shape.context_tokens} tokens, {model.kv_cache_bytes / MIB:.0f} MiB of KV"
            for model in self.snapshot.running_models
        ]
        return (
            f"balloon {self.balloon_mib:4} MiB, available {self.snapshot.memory_available_bytes / MIB:4.0f} MiB, "
            f"{tier_name(self.snapshot.pressure_tier):8} | {'; '.join(models) or 'no model'}"
        )


def measure() -> list[Row]:
    try:
        return [*_measure_limits(), *_measure_balloon()]
    except CannotLimitMemory as reason:
        print(f"left out: {reason}")
        return []


def tier_name(tier: plan_pb2.PressureTier) -> str:
    return plan_pb2.PressureTier.Name(tier).removeprefix("PRESSURE_TIER_").lower()


def _measure_limits() -> list[Row]:
    """A first message of a few thousand tokens, in ever smaller groups."""
    turns: list[Turn] = []
    killed = 0
    for limit_mib in LIMITS_MIB:
        with limited_daemon(limit_mib) as (group, folder, _):
            with autotune.Client(f"unix:{folder / 'run' / 'autotuned.sock'}") as client:
                turns.append(take_turn(client, [{"role": "user", "content": DOCUMENT}], time.monotonic()))
            killed += group.killed_count
        print(f"limit {limit_mib:4} MiB | {turns[-1].line()}")
    levels = Counter(turn.plan.reduction_level for turn in turns if not turn.failure)
    failures = Counter(turn.failure for turn in turns if turn.failure)
    reduced = [turn for turn in turns if turn.plan.reduction_level]
    return [
        *(
            Row(f"lower limits: answered at level {level}", count, "loads")
            for level, count in sorted(levels.items())
        ),
        *(Row(f"lower limits: refused, {name}", count, "loads") for name, count in failures.items()),
        none_of("lower limits: failed for another reason", failures.total() - failures["WOULD_SWAP"]),
        none_of(
            "lower limits: reduced without saying why", sum(not names_shortage(turn) for turn in reduced)
        ),
        none_of("lower limits: killed by the kernel", killed),
    ]


def _measure_balloon() -> list[Row]:
    """A conversation while another program grows to all that is left, stays, and goes."""
    with (
        limited_daemon(SQUEEZED_LIMIT_MIB) as (group, folder, daemon),
        Balloon(group.wrapper) as balloon,
        autotune.Client(f"unix:{folder / 'run' / 'autotuned.sock'}") as client,
    ):
        since = time.monotonic()
        talk = Talk(client, since)
        watch = Watch(client, group, balloon, since)
        talk.wait_for_first_turn()
        watch.look()
        daemon_faults = major_faults(daemon)
        watch.blow_up(talk)
        worst = len(watch.moments) - 1
        ps = autotunectl(folder, "ps", "--verbose")
        balloon.hold(0)
        watch.wait(RECOVERY_SECONDS)
        talk.end()
        daemon_faults = major_faults(daemon) - daemon_faults
    for line in sorted(
        [(turn.at_seconds, f"  turn | {turn.line()}") for turn in talk.turns]
        + [(moment.at_seconds, moment.line()) for moment in watch.moments]
    ):
        print(f"{line[0]:7.2f} s  {line[1]}")
    print(ps)
    return _rows(talk, watch, worst, ps, daemon_faults)


def _rows(talk: Talk, watch: Watch, worst: int, ps: str, daemon_faults: int) -> list[Row]:
    first, top, last = watch.moments[0], watch.moments[worst], watch.moments[-1]
    answered = [turn for turn in talk.turns if not turn.failure]
    failures = Counter(turn.failure for turn in talk.turns if turn.failure)
    tiers = Counter(tier_name(moment.snapshot.pressure_tier) for moment in watch.moments)
    levels = Counter(turn.plan.reduction_level for turn in answered)
    return [
        Row("squeeze: most that the other program held", max(m.balloon_mib for m in watch.moments), "MiB"),
        *(Row(f"squeeze: tier {name}", count, "looks") for name, count in tiers.most_common()),
        Row("squeeze: KV cache before", kv_cache_mib(first), "MiB"),
        Row("squeeze: KV cache at the worst", kv_cache_mib(top), "MiB"),
        Row("squeeze: KV cache afterwards", kv_cache_mib(last), "MiB"),
        Row("squeeze: turns answered", len(answered), "turns", 1, at_least=True),
        Row("squeeze: longest wait for a first token", max(t.first_token_seconds for t in answered), "s"),
        *(Row(f"squeeze: turns at level {level}", count, "turns") for level, count in sorted(levels.items())),
        *(Row(f"squeeze: failed, {name}", count, "turns") for name, count in failures.items()),
        none_of("squeeze: failed but for WOULD_SWAP", failures.total() - failures["WOULD_SWAP"]),
        none_of("squeeze: killed by the kernel", last.killed_count),
        Row(
            "squeeze: major faults a second, the worst",
            watch.worst_faults_per_second(),
            "/s",
            STORM_FAULTS_PER_SECOND,
        ),
        Row("squeeze: major faults of the daemon", daemon_faults, "faults"),
        Row("squeeze: files read again", last.reread_bytes / 1e6 - first.reread_bytes / 1e6, "MB"),
        Row(
            "squeeze: answers that say that memory is short",
            sum(map(names_shortage, answered)),
            "turns",
            1,
            at_least=True,
        ),
        Row(
            "squeeze: sentences in ps that say it", shortage_sentences(top, ps), "sentences", 1, at_least=True
        ),
    ]


@contextmanager
def limited_daemon(limit_mib: int) -> Iterator[tuple[MemoryGroup, Path, psutil.Process]]:
    """A daemon in a group of its own, whose models folder has the model; nothing of it is in the cache."""
    with memory_group(limit_mib * MIB) as group, processes.home() as folder:
        models = folder / "data" / "models"
        models.mkdir(parents=True)
        processes.drop_from_cache(
            write_large_llama(models / f"{MODEL}.gguf", parameters_count=PARAMETERS_COUNT)
        )
        options = ("--set", f"memory.margin_mib={MARGIN_MIB}", "--set", f"models.default={MODEL}")
        with processes.daemon(folder, *options, wrapper=group.wrapper) as (daemon, _):
            yield group, folder, psutil.Process(daemon.pid)


def take_turn(client: autotune.Client, messages: Sequence[dict[str, str]], since: float) -> Turn:
    """Asks for a long answer, which decides about the context, and stops it after its first words."""
    started = time.monotonic()
    answer = ReplyBuilder()
    first_token_seconds = 0.0
    try:
        with closing(client.generate(chat_request(messages, profile="quality", temperature=0))) as events:
            for pieces, event in enumerate(events):
                if answer.add(event) and not first_token_seconds:
                    first_token_seconds = time.monotonic() - started
                if pieces >= REPLY_PIECES:
                    break
    except AutotuneError as error:
        return Turn(started - since, failure=error.reason, message=error.message)
    return Turn(
        started - since,
        message=answer.text,
        plan=answer.started.plan,
        prompt_tokens=answer.started.prompt_tokens,
        cached_tokens=answer.started.cached_tokens,
        first_token_seconds=first_token_seconds,
    )


class Talk:
    """A conversation that goes on by itself, in a thread, until it is ended."""

    def __init__(self, client: autotune.Client, since: float) -> None:
        self.turns: list[Turn] = []
        self._client = client
        self._since = since
        self._ending = threading.Event()
        self._has_turn = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait_for_first_turn(self) -> None:
        self._has_turn.wait()

    def end(self) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        messages = [{"role": "user", "content": DOCUMENT}]
        while not self._ending.is_set():
            turn = take_turn(self._client, messages, self._since)
            self.turns.append(turn)
            self._has_turn.set()
            if not turn.failure:
                messages += [
                    {"role": "assistant", "content": turn.message},
                    {"role": "user", "content": QUESTION},
                ]
            self._ending.wait(PAUSE_SECONDS)


class Watch:
    """Looks at the group and the daemon again and again."""

    def __init__(self, client: autotune.Client, group: MemoryGroup, balloon: Balloon, since: float) -> None:
        self.moments: list[Moment] = []
        self._client = client
        self._group = group
        self._balloon = balloon
        self._since = since

    def blow_up(self, talk: Talk) -> None:
        """Lets the other program grow until it has all that it can have."""
        deadline = time.monotonic() + LONGEST_SECONDS
        turns_before = len(talk.turns)
        while len(talk.turns) < turns_before + FULL_TURNS and time.monotonic() < deadline:
            if self.moments[-1].snapshot.memory_available_bytes >= (LEFT_MIB + STEP_MIB) * MIB:
                self._balloon.hold(self._balloon.held_mib + STEP_MIB)
                turns_before = len(talk.turns)
            self.wait(STEP_SECONDS)

    def wait(self, seconds: float) -> None:
        """Looks now and then for so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        self.moments.append(
            Moment(
                at_seconds=time.monotonic() - self._since,
                balloon_mib=self._balloon.held_mib,
                killed_count=self._group.killed_count,
                major_faults=self._group.stat("pgmajfault"),
                reread_bytes=4096 * self._group.stat("workingset_refault_file"),
                snapshot=self._client.snapshot(),
            )
        )

    def worst_faults_per_second(self) -> float:
        pairs = zip(self.moments, self.moments[1:], strict=False)
        return max(
            ((b.major_faults - a.major_faults) / (b.at_seconds - a.at_seconds) for a, b in pairs), default=0.0
        )


def major_faults(process: psutil.Process) -> int:
    """Of a process alone; Linux."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[9])


def kv_cache_mib(moment: Moment) -> float:
    return sum(model.kv_cache_bytes for model in moment.snapshot.running_models) / MIB


def names_shortage(turn: Turn) -> bool:
    """Whether the plan says that memory was short."""
    return any(is_of_shortage(reason) for reason in turn.plan.reasons)


def is_of_shortage(reason: plan_pb2.PlanReason) -> bool:
    return reason.code in SHORTAGE_CODES


def shortage_sentences(moment: Moment, ps: str) -> int:
    """Sentences about the shortage among the reasons of the loaded model that "autotunectl ps" shows."""
    words = " ".join(ps.split())
    reasons = [reason for model in moment.snapshot.running_models for reason in model.reasons]
    return sum(" ".join(reason.text.split()) in words for reason in reasons if is_of_shortage(reason))


def autotunectl(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "autotunectl", *arguments],
        env={**processes.environment(folder), "COLUMNS": "400"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def none_of(name: str, count: int) -> Row:
    """A row whose only good value is 0."""
    return Row(name, count, "", 1)
