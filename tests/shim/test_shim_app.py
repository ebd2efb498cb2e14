from __future__ import annotations

import pytest
from autotune.errors import DaemonUnreachable, ModelNotFound

from tests.shim.scripted import CHAT, ScriptedClient, finished, get, post, started, text

GONE = DaemonUnreachable('No daemon is running; start one with "autotunectl chat".')


async def test_the_list_of_models():
    call = await get(ScriptedClient(), "/v1/models")
    assert call.status == 200
    listed = call.json()
    assert listed["object"] == "list"
    assert listed["autotune"] == {"default_model": "pocket"}
    [model] = listed["data"]
    assert (model["id"], model["object"], model["owned_by"]) == ("pocket", "model", "llamacpp")
    assert isinstance(model["created"], int)
    assert (model["autotune"]["state"], model["autotune"]["size_bytes"]) == ("ready", 7)
    assert model["autotune"]["fit"] == {
        "class": "swap_risk",
        "required_bytes": 9,
        "available_bytes": 8,
        "safe_context_tokens": 0,
    }


@pytest.mark.parametrize("model", ["pocket", "org/name:q8"])
async def test_one_model(model):
    call = await get(ScriptedClient(), f"/v1/models/{model}")
    assert (call.status, call.json()["id"]) == (200, model)


async def test_a_model_that_is_not_there():
    call = await get(ScriptedClient(failure=ModelNotFound('There is no model "x".')), "/v1/models/x")
    assert (call.status, call.json()["error"]["code"]) == (404, "model_not_found")


async def test_health():
    call = await get(ScriptedClient(), "/health")
    assert call.status == 200
    assert call.json() == {
        "status": "ok",
        "version": "0.1.0",
        "engines": [],
        "queue": {"active_requests_count": 1, "queued_requests_count": 2},
        "memory": {"total_bytes": 8, "available_bytes": 0, "swap_used_bytes": 0, "daemon_resident_bytes": 0},
        "models": [],
    }


async def test_health_without_a_daemon():
    call = await get(ScriptedClient(failure=GONE), "/health")
    assert call.status == 503
    assert call.json() == {
        "status": "unavailable",
        "error": {"reason": "DAEMON_UNREACHABLE", "message": GONE.message},
    }


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/pocket"])
async def test_models_without_a_daemon(path):
    call = await get(ScriptedClient(failure=GONE), path)
    assert (call.status, call.json()["error"]["message"]) == (503, GONE.message)


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/chat", "/v1/chat/completions/", "/v1/embeddings", "/favicon.ico"]
)
async def test_other_paths_are_not_there(path):
    call = await post(ScriptedClient(), CHAT, path=path)
    assert call.status == 404
    assert call.json()["error"]["code"] == "unknown_url"
    assert path in call.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models/pocket", "GET"),
        ("POST", "/health", "GET"),
    ],
)
async def test_other_methods_are_not_allowed(method, path, allowed):
    call = await get(ScriptedClient(), path, method)
    assert call.status == 405
    assert allowed in call.headers["allow"]
    assert call.json()["error"]["code"] == "method_not_allowed"


async def test_a_defect_of_an_endpoint_is_logged_and_not_told(caplog):
    call = await get(ScriptedClient(failure=KeyError("secret")), "/health")
    assert call.status == 500
    assert b"secret" not in call.body
    assert "secret" in caplog.text


async def test_no_answer_invites_other_sites():
    calls = [
        await post(
            ScriptedClient([started(), text("x"), finished()]),
            CHAT,
            headers={"Origin": "https://evil.example"},
        ),
        await get(ScriptedClient(), "/v1/models"),
        await get(ScriptedClient(), "/health"),
        await get(ScriptedClient(), "/v1/chat/completions", "OPTIONS"),
    ]
    assert not [name for call in calls for name in call.headers if name.startswith("access-control")]
