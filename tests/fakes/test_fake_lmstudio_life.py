"""When models of the double of LM Studio come and go, and what tests can make go wrong."""

from __future__ import annotations

import asyncio
import json

import httpx
import psutil
import pytest

from tests.engines.processes import until
from tests.fakes.lmstudio.asking import (
    ANSWER,
    CHAT,
    LONG,
    QUESTION,
    STREAM,
    chunks_of,
    has_instances,
    instances,
    load,
    text_of,
    unload_all,
    with_pocket,
)
from tests.fakes.lmstudio.start import running_lmstudio
from tests.fakes.serving import family_of, free_port, is_alive


@pytest.fixture(scope="module")
async def running():
    async with running_lmstudio(models=("pocket", "second"), context_tokens=512) as server:
        yield server


@pytest.fixture
async def server(running):
    """The server with nothing loaded."""
    await unload_all(running)
    return running


@pytest.fixture
async def loaded(running):
    """The server with the pocket model loaded, and nothing else."""
    return await with_pocket(running)


async def test_a_request_loads_a_model_and_the_next_one_evicts_it(server):
    await load(server)
    await server.client.post(CHAT, json={**QUESTION, "model": "second", "ttl": 300})
    [_, second] = (await server.state())["instances"]
    assert (second["jit"], second["ttl_seconds"]) == (True, 300)
    # It is loaded, so that this has no effect.
    await server.client.post(CHAT, json={**QUESTION, "model": "second", "ttl": 1})
    assert (await server.state())["instances"][1]["ttl_seconds"] == 300

    await server.client.post("/api/v1/models/unload", json={"instance_id": "pocket"})
    await server.client.post(CHAT, json=QUESTION)
    state = await server.state()
    assert [(i["id"], i["jit"], i["ttl_seconds"]) for i in state["instances"]] == [("pocket", True, 3600)]
    assert state["unloads"][-1] == {"id": "second", "reason": "evicted"}


async def test_a_busy_model_is_evicted_all_the_same(server):
    await server.arm("hang_mid_stream")
    asking = asyncio.ensure_future(server.client.post(CHAT, json={**STREAM, "logit_bias": {"2": -100}}))

    async def hangs():
        return (await server.state())["armed"] == []

    await until(hangs, "the stream hangs")
    await server.client.post(CHAT, json={**QUESTION, "model": "second"})
    await server.release()
    assert '"Model unloaded."' in (await asking).text
    assert await instances(server) == ["second"]


async def test_an_idle_model_leaves_when_its_time_is_over(server):
    await load(server, model="second")
    await server.client.post(CHAT, json={**QUESTION, "ttl": 1.0})
    [_, pocket] = (await server.state())["instances"]
    await asyncio.sleep(0.6)
    await server.client.post(CHAT, json=QUESTION)
    await asyncio.sleep(0.6)
    assert await instances(server) == ["second", "pocket"]
    await until(lambda: has_instances(server, ["second"]), "the idle model leaves")
    assert (await server.state())["unloads"][-1] == {"id": "pocket", "reason": "expired"}
    assert not psutil.pid_exists(pocket["process_id"])


async def test_faults_are_for_one_request(loaded):
    for fault, expected in [
        ("error_mid_stream", {"message": "Error in predict stream"}),
        ("text_error_mid_stream", "Error in predict stream"),
    ]:
        await loaded.arm(fault)
        lines = (await loaded.client.post(CHAT, json=STREAM)).text.strip().splitlines()
        assert lines[-2] == "event: error"
        assert json.loads(lines[-1].removeprefix("data: "))["error"] == expected
    await loaded.arm("close_mid_stream")
    with pytest.raises(httpx.RemoteProtocolError):
        await loaded.client.post(CHAT, json=STREAM)
    assert text_of(chunks_of((await loaded.client.post(CHAT, json=STREAM)).text)) == ANSWER

    await loaded.arm("fail_load")
    answer = await loaded.client.post("/api/v1/models/load", json={"model": "second"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "internal_error")
    assert await instances(loaded) == ["pocket"]


@pytest.mark.parametrize("fault", ["hang_before_headers", "hang_mid_stream"])
@pytest.mark.parametrize("stays", [True, False])
async def test_what_hangs_ends_with_its_client_or_goes_on(loaded, fault, stays):
    async def is_idle():
        state = await loaded.state()
        return state["active_requests"] == 0 and all(i["active"] == 0 for i in state["instances"])

    async def hangs():
        state = await loaded.state()
        return state["active_requests"] == 1 and state["armed"] == []

    await loaded.arm(fault)
    asking = asyncio.ensure_future(loaded.client.post(CHAT, json=STREAM))
    await until(hangs, "the request hangs")
    await asyncio.sleep(0.05)
    assert not asking.done()
    if stays:
        await loaded.release()
        assert text_of(chunks_of((await asking).text)) == ANSWER
    else:
        asking.cancel()
        await asyncio.wait([asking])
    await until(is_idle, "nothing is left of the request")


async def test_who_leaves_stops_the_computation(server):
    async def is_idle():
        return (await server.state())["instances"][0]["active"] == 0

    await load(server, context_length=8192)
    # Never ends by itself: the end token may not be sampled.
    endless = {**QUESTION, "logit_bias": {"2": -100}}
    for body in (endless, {**endless, "stream": True}):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.client.post(CHAT, json=body), 0.3)
        await until(is_idle, "the answer nobody waits for is stopped", 2.0)


async def test_an_engine_that_crashes_is_gone_from_the_list(server):
    await load(server)
    await server.arm("hang_mid_stream")
    asking = asyncio.ensure_future(server.client.post(CHAT, json={**STREAM, "logit_bias": {"2": -100}}))

    async def hangs():
        return (await server.state())["armed"] == []

    await until(hangs, "the stream hangs")
    await server.crash("pocket")
    await until(lambda: has_instances(server, []), "the instance is gone")
    await server.release()
    assert "The model has crashed without additional information." in (await asking).text
    assert (await server.state())["unloads"][-1] == {"id": "pocket", "reason": "crashed"}


async def test_requests_are_remembered(loaded):
    await loaded.client.post("/api/v1/models/load", json={"model": "nothing"})
    last = (await loaded.state())["requests"][-1]
    assert (last["method"], last["path"], last["body"]) == (
        "POST",
        "/api/v1/models/load",
        {"model": "nothing"},
    )


async def test_a_server_with_other_settings():
    settings = {"api_token": "sk-lm-1", "rest_v1": False, "jit_loading": False, "silent_overflow": True}
    async with running_lmstudio(**settings) as server:
        for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}):
            answer = await server.client.get("/v1/models", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        answer = await server.client.get("/api/v1/models")
        assert answer.status_code == 200
        assert answer.json() == {"error": "Unexpected endpoint or method. (GET /api/v1/models)"}
        assert (await server.client.get("/v1/models")).json()["data"] == []
        [pocket] = (await server.client.get("/api/v0/models")).json()["data"]
        assert pocket["state"] == "not-loaded"
        answer = await server.client.post(CHAT, json=QUESTION)
        assert (answer.status_code, answer.json()["error"][:17]) == (400, "No models loaded.")


async def test_a_prompt_that_is_too_long_may_end_in_silence():
    async with running_lmstudio(silent_overflow=True, context_tokens=512) as server:
        chunks = chunks_of((await server.client.post(CHAT, json={**LONG, "stream": True})).text)
        assert text_of(chunks) == ""
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_nothing_is_left_and_the_port_can_be_used_again():
    port = free_port()
    for end in ("die_mid_stream", "kill", "leave"):
        async with running_lmstudio(port=port) as server:
            await load(server)
            family = family_of(server.process.pid)
            assert len(family) == 2  # the server and its engine
            if end == "die_mid_stream":
                await server.arm(end)
                with pytest.raises(httpx.RemoteProtocolError):
                    await server.client.post(CHAT, json=STREAM)
            elif end == "kill":
                await server.die()
        assert not any(map(is_alive, family))
        assert not psutil.pid_exists(server.process.pid)
        assert not server.models_folder.exists()
