"""What a worker is: its shape as it reports it, its place among the processes, its socket."""

import json
import os
import signal
import stat
import sys
from contextlib import aclosing

import psutil
import pytest

from autotuned.core.errors import EngineUnreachable
from autotuned.core.plan import KvCacheType
from autotuned.engines.endpoint import Endpoint
from autotuned.engines.guard import WORKER_OOM_SCORE
from autotuned.engines.http import fetch
from tests.engines.shapes import SHAPE, shape
from tests.suites.engine_case import TALK, answer, ask, text_of

Q8_0 = KvCacheType.Q8_0


async def get(model, target):
    status, body = await fetch(Endpoint.unix(model._worker.socket_path), "GET", target, silence_seconds=10.0)
    return status, json.loads(body)


@pytest.fixture
async def model(engine, pocket):
    return await engine.load(pocket, SHAPE, lambda _: None)


@pytest.mark.parametrize(
    "wanted",
    [
        shape(),
        shape(context_tokens=4096, slots_count=3),
        shape(context_tokens=512, batch_tokens=64, micro_batch_tokens=32),
        shape(key_cache_type=Q8_0, value_cache_type=Q8_0),
        shape(key_cache_type=Q8_0),
        shape(flash_attention=False),
        shape(kv_unified=True, slots_count=4),
        shape(kv_unified=True, slots_count=2, key_cache_type=Q8_0, value_cache_type=Q8_0),
        shape(host_prompt_cache_bytes=48 << 20),
        shape(memory_mapped=False),
    ],
    ids=[
        "default",
        "slots",
        "batches",
        "q8_0",
        "mixed",
        "no flash attention",
        "unified",
        "unified q8_0",
        "prompt cache",
        "read",
    ],
)
async def test_props_and_slots_are_as_planned(engine, pocket, wanted):
    model = await engine.load(pocket, wanted, lambda _: None)
    _, props = await get(model, "/props")
    _, slots = await get(model, "/slots")
    assert props["total_slots"] == len(slots) == wanted.slots_count
    assert {slot["n_ctx"] for slot in slots} == {wanted.context_tokens}
    assert props["default_generation_settings"]["n_ctx"] == wanted.context_tokens
    assert model._worker.log.report == {
        "n_batch": str(wanted.batch_tokens),
        "n_ubatch": str(wanted.micro_batch_tokens),
        "flash_attn": "enabled" if wanted.flash_attention else "disabled",
        "K": wanted.key_cache_type.value,
        "V": wanted.value_cache_type.value,
        "kv_unified": "true" if wanted.kv_unified else "false",
        "load_mode": "mmap" if wanted.memory_mapped else "none",
        "prompt cache": "enabled, size limit: 48 MiB" if wanted.host_prompt_cache_bytes else "disabled",
        "context checkpoints": "disabled",
    }
    assert model.shape == wanted
    assert (
        text_of(await answer(model, ask("What is the capital of France?")))
        == "The capital of France is Paris."
    )


async def test_a_context_is_rounded_up_and_reported_so(engine, pocket):
    model = await engine.load(pocket, shape(context_tokens=1000, slots_count=2), lambda _: None)
    assert (model.shape.context_tokens, model.shape.slots_count) == (1024, 2)


async def test_a_batch_is_cut_to_the_context_and_reported_so(engine, pocket):
    wanted = shape(context_tokens=256, batch_tokens=2048, micro_batch_tokens=1024)
    model = await engine.load(pocket, wanted, lambda _: None)
    assert (model.shape.batch_tokens, model.shape.micro_batch_tokens) == (256, 256)


async def test_nothing_is_served_beside_requests(model):
    _, props = await get(model, "/props")
    assert props["model_alias"] == "pocket"
    assert props["ui"] is False
    assert props["endpoint_props"] is False
    assert props["endpoint_metrics"] is False
    assert props["cors_proxy_enabled"] is False
    assert (await get(model, "/metrics"))[0] == 501


async def test_the_processes_are_daemon_guard_worker(model):
    worker = psutil.Process(model.process_id)
    guard = worker.parent()
    assert guard.ppid() == os.getpid()
    assert guard.cmdline()[-1] == worker.cmdline()[-1]
    assert "guard.py" in " ".join(guard.cmdline())
    assert json.loads(worker.cmdline()[-1])["model"].endswith("pocket.gguf")
    # A session of their own: what a terminal sends to the daemon's group does not reach them.
    assert os.getsid(worker.pid) == os.getsid(guard.pid) == guard.pid != os.getsid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has scores for this")
async def test_the_worker_goes_first_when_memory_runs_out(model):
    with open(f"/proc/{model.process_id}/oom_score_adj") as score:  # noqa: ASYNC230, PTH123 - not a disk
        assert int(score.read()) == WORKER_OOM_SCORE


async def test_the_socket_is_for_the_owner_alone(model, paths):
    (socket_path,) = paths.runtime.iterdir()
    assert socket_path == model._worker.socket_path
    assert stat.filemode(socket_path.stat().st_mode) == "srw-------"
    await model.unload()
    assert list(paths.runtime.iterdir()) == []


async def test_every_incarnation_has_a_fresh_socket(engine, pocket, paths):
    seen = set()
    for _ in range(3):
        model = await engine.load(pocket, SHAPE, lambda _: None)
        seen |= set(paths.runtime.iterdir())
        await model.unload()
    assert len(seen) == 3


async def test_requests_leave_no_trace_in_the_log(model):
    lines = model._worker.log.lines
    await answer(model, ask("The code word is zuzaba. What is the code word?"))
    assert model._worker.log.lines == lines
    assert not any("zuzaba" in line for line in lines)


async def test_a_worker_that_hangs_is_ended_and_fails_its_requests(make_engine, pocket):
    model = await make_engine(silence_timeout_seconds=0.3).load(pocket, SHAPE, lambda _: None)
    async with aclosing(model.generate(ask("Count from 1 to 79."), TALK)) as events:
        await anext(events)
        os.kill(model.process_id, signal.SIGSTOP)
        with pytest.raises(EngineUnreachable, match="fell silent"):
            async for _ in events:
                pass
    assert model.is_gone
    assert await model.wait_gone() == "it fell silent and was ended"
