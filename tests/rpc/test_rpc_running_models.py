"""The list of running models, page by page: one name may run on several engines, and twice on one."""

from __future__ import annotations

from types import SimpleNamespace

from autotune.v1 import model_service_pb2

from autotuned.core.model import ModelState, RunningModel
from autotuned.rpc.models import ModelServicer


def running(model_id, engine, *, foreign=False):
    return RunningModel(
        id=model_id,
        engine=engine,
        state=ModelState.READY,
        incarnation_id="",
        shape=None,
        footprint=None,
        expires_at=0.0,
        resident_memory_bytes=0,
        process_id=0,
        loaded_at=0.0,
        last_used_at=0.0,
        load_seconds=0.0,
        active_requests_count=0,
        queued_requests_count=0,
        reasons=(),
        loaded_by_others=foreign,
    )


async def test_no_page_loses_a_model():
    own = [running("pocket", "llamacpp"), running("zoo", "llamacpp"), running("pocket", "ollama")]
    foreign = [running("a", "ollama", foreign=True), *[running("pocket", "lmstudio", foreign=True)] * 2]

    async def foreign_models():
        return foreign

    servicer = ModelServicer(
        models=None,
        inference=None,
        prefixes=None,
        system=SimpleNamespace(running_models=lambda: own),
        engines=SimpleNamespace(foreign_models=foreign_models),
        pulls=None,
        removal=None,
    )
    found, token = [], ""
    for _ in range(10):
        answer = await servicer.ListRunningModels(
            model_service_pb2.ListRunningModelsRequest(page_size=1, page_token=token), None
        )
        found += [(model.id, model.engine) for model in answer.running_models]
        token = answer.next_page_token
        if not token:
            break
    assert found == sorted((model.id, model.engine) for model in own + foreign)
