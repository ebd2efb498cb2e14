"""A recorded day: what loads and prefill cost under three ways to choose a context.

The planner is the daemon as it is. Snapping is what programs do that send a context with each request:
the smallest bucket that holds it, and a reload whenever that is another one. The oracle knew every
size beforehand: it loads once after each rest, as large as the block of work will need. All three run
the same requests one after the other on real workers with the same random-weight model.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from pathlib import Path

import autotune
from autotune.v1 import chat_pb2, inference_service_pb2, plan_pb2

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    Message,
    RawPrompt,
    Role,
    Sampling,
    TextPart,
    Tool,
)
from autotuned.core.generation import EngineFinished
from autotuned.core.plan import KvCacheType, LoadShape
from autotuned.core.settings import LlamacppSettings, PathSettings
from autotuned.daemon import SystemClock
from autotuned.engines.llamacpp.engine import LlamacppEngine
from autotuned.policy.sizing import snap_up
from tests.bench import processes
from tests.bench.day_trace import TOOL, Step, day
from tests.bench.report import Row
from tests.engines.random_models import write_model

# What is computed of each reply; the limit that the client sets only reserves room.
COMPUTED_REPLY_TOKENS = 4
TRAIN_CONTEXT_TOKENS = 32_768
SPARE_TOKENS = 256
BATCH_TOKENS = 512
HOST_CACHE_BYTES = 1 << 30


@dataclass
class Served:
    """One request as an arm carried it out."""

    prompt_tokens: int
    cached_tokens: int
    context_tokens: int
    load_seconds: float
    loads: int
    growths: int = 0


def measure() -> list[Row]:
    steps = day()
    with processes.home() as folder:
        models = folder / "data" / "models"
        models.mkdir(parents=True)
        model = write_model(
            models / "day.gguf",
            "llama",
            layers=2,
            embedding=128,
            heads=4,
            kv_heads=4,
            head_length=64,
            feed_forward=384,
            train_context=TRAIN_CONTEXT_TOKENS,
        )
        planner = _planner(folder, steps)
        needs = [
            served.prompt_tokens + step.reply_tokens for step, served in zip(steps, planner, strict=True)
        ]
        oracle = asyncio.run(_by_contexts(folder, model, steps, _oracle_contexts(steps, needs)))
        snapping = asyncio.run(
            _by_contexts(
                folder, model, steps, [snap_up(need + SPARE_TOKENS, TRAIN_CONTEXT_TOKENS) for need in needs]
            )
        )
    return list(_rows(steps, planner, oracle, snapping))


def _rows(
    steps: Sequence[Step], planner: Sequence[Served], oracle: Sequence[Served], snapping: Sequence[Served]
) -> Iterator[Row]:
    prompts = [served.prompt_tokens for served in planner]
    yield Row("requests", len(steps), "")
    yield Row("smallest prompt", min(prompts), "tokens")
    yield Row("largest prompt", max(prompts), "tokens")
    cut = sum(abs(a.prompt_tokens - b.prompt_tokens) > 0 for a, b in zip(planner, oracle, strict=True))
    yield Row("prompts that were cut", cut, "", 1)
    for name, arm in (("planner", planner), ("snapping", snapping), ("oracle", oracle)):
        yield Row(f"{name}: loads", sum(served.loads for served in arm), "")
        yield Row(f"{name}: load time", sum(served.load_seconds for served in arm), "s")
        yield Row(f"{name}: prefilled again", _again(steps, arm), "tokens")
    growths, allowed = _growths(steps, planner)
    yield Row("planner: growths", growths, "", allowed + 1)
    loading = [sum(served.load_seconds for served in arm) for arm in (planner, oracle, snapping)]
    again = [_again(steps, arm) for arm in (planner, oracle, snapping)]
    yield Row("load time, planner against oracle", loading[0] / loading[1], "x", 1.5)
    yield Row("load time, planner against snapping", loading[0] / loading[2], "x", 1 / 3)
    yield Row("prefilled again, planner against oracle", again[0] / max(1, again[1]), "x", 1.5)
    yield Row("prefilled again, planner against snapping", again[0] / max(1, again[2]), "x", 1 / 3)


def _again(steps: Sequence[Step], arm: Sequence[Served]) -> int:
    """Tokens that had been computed for the request before in their conversation, and were not cached."""
    before: dict[str, int] = {}
    total = 0
    for step, served in zip(steps, arm, strict=True):
        total += max(0, before.get(step.conversation, 0) - served.cached_tokens)
        before[step.conversation] = served.prompt_tokens
    return total


def _growths(steps: Sequence[Step], planner: Sequence[Served]) -> tuple[int, int]:
    """Growths, and what the first and last context of each residence allow: log2 of their ratio."""
    allowed, first, last = 0, 0, 0
    for step, served in zip(steps, planner, strict=True):
        if step.rests_before and first:
            allowed += math.ceil(math.log2(last / first))
            first = 0
        first = first or served.context_tokens
        last = served.context_tokens
    allowed += math.ceil(math.log2(last / first))
    return sum(served.growths for served in planner), allowed


def _planner(folder: Path, steps: Sequence[Step]) -> list[Served]:
    served = []
    with processes.daemon(folder):
        clients = {
            name: autotune.Client(f"unix:{folder / 'run' / 'autotuned.sock'}", name)
            for name in ("editor", "chat", "agent")
        }
        for step in steps:
            client = clients[step.client]
            if step.rests_before:
                client.unload_model("day")
            served.append(_ask(client, step))
        for client in clients.values():
            client.close()
    return served


def _ask(client: autotune.Client, step: Step) -> Served:
    started = inference_service_pb2.Started()
    loading_at, load_seconds, pieces = 0.0, 0.0, 0
    with closing(client.generate(_wire_request(step))) as events:
        for event in events:
            if event.HasField("queued") and event.queued.HasField("load_progress"):
                loading_at = loading_at or time.monotonic()
            if event.HasField("started"):  # it comes before prefill: what lies between is the load
                started, load_seconds = event.started, time.monotonic() - loading_at
            pieces += event.HasField("delta")
            if pieces >= COMPUTED_REPLY_TOKENS:
                break
    grew = started.plan.action == plan_pb2.PLAN_ACTION_GROW
    loaded = started.plan.action != plan_pb2.PLAN_ACTION_REUSE
    return Served(
        prompt_tokens=started.prompt_tokens,
        cached_tokens=started.cached_tokens,
        context_tokens=started.plan.shape.context_tokens,
        load_seconds=load_seconds if loaded else 0.0,
        loads=int(loaded),
        growths=int(grew),
    )


def _wire_request(step: Step) -> inference_service_pb2.GenerateRequest:
    request = inference_service_pb2.GenerateRequest(
        model="day",
        sampling=inference_service_pb2.Sampling(temperature=0.0),
        max_reply_tokens=step.reply_tokens,
    )
    if step.client == "editor":
        request.raw_prompt.prompt = " ".join(step.pieces)
        return request
    for number, piece in enumerate(step.pieces):
        role = chat_pb2.ROLE_ASSISTANT if number % 2 else chat_pb2.ROLE_USER
        request.chat.messages.add(role=role).parts.add(text=piece)
    if step.client == "agent":
        request.chat.tools.add(name="read_file", description="Reads a file.", parameters_json=TOOL)
    return request


def _core_request(step: Step) -> GenerationRequest:
    if step.client == "editor":
        prompt: ChatInput | RawPrompt = RawPrompt(" ".join(step.pieces), "")
    else:
        messages = tuple(
            Message(Role.ASSISTANT if number % 2 else Role.USER, (TextPart(piece),))
            for number, piece in enumerate(step.pieces)
        )
        tools = (Tool("read_file", "Reads a file.", TOOL),) if step.client == "agent" else ()
        prompt = ChatInput(messages=messages, tools=tools)
    return GenerationRequest(
        model="day",
        input=prompt,
        sampling=Sampling(temperature=0.0),
        max_reply_tokens=COMPUTED_REPLY_TOKENS,
    )


def _oracle_contexts(steps: Sequence[Step], needs: Sequence[int]) -> list[int]:
    """For every step the context that its whole block of work will need."""
    blocks: list[list[int]] = []
    for step, need in zip(steps, needs, strict=True):
        if step.rests_before or not blocks:
            blocks.append([])
        blocks[-1].append(need)
    return [snap_up(max(block) + SPARE_TOKENS, TRAIN_CONTEXT_TOKENS) for block in blocks for _ in block]


async def _by_contexts(
    folder: Path, model: Path, steps: Sequence[Step], contexts: Sequence[int]
) -> list[Served]:
    """Runs each step in exactly this context, with a reload wherever it is another one."""
    (folder / "arm").mkdir(exist_ok=True)
    clock = SystemClock()
    engine = LlamacppEngine(
        paths=PathSettings(data=folder / "arm", runtime=folder / "arm", state=folder / "arm"),
        settings=LlamacppSettings(),
        files=(model,),
        clock=clock,
    )
    entry = next(entry for entry in await engine.models() if entry.id == "day")
    served, loaded = [], None
    for step, context_tokens in zip(steps, contexts, strict=True):
        load_seconds, loads = 0.0, 0
        if loaded is None or step.rests_before or loaded.shape.context_tokens != context_tokens:
            before = clock.monotonic()
            if loaded is not None:
                await loaded.unload()
            loaded = await engine.load(entry, _shape(context_tokens), lambda _: None)
            load_seconds, loads = clock.monotonic() - before, 1
        async with aclosing(loaded.generate(_core_request(step), step.conversation)) as events:
            async for event in events:
                if isinstance(event, EngineFinished):
                    usage = event.usage
        served.append(Served(usage.prompt_tokens, usage.cached_tokens, context_tokens, load_seconds, loads))
    await engine.close()
    return served


def _shape(context_tokens: int) -> LoadShape:
    return LoadShape(
        context_tokens=context_tokens,
        slots_count=1,
        kv_unified=False,
        key_cache_type=KvCacheType.F16,
        value_cache_type=KvCacheType.F16,
        batch_tokens=BATCH_TOKENS,
        micro_batch_tokens=BATCH_TOKENS,
        flash_attention=True,
        gpu_layers_count=0,
        host_prompt_cache_bytes=HOST_CACHE_BYTES,
        memory_mapped=True,
    )
