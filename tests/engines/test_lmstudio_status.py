"""How the LM Studio adapter says how things stand: absent, stopped, locked, hung, off."""

import asyncio
import time

import pytest

from autotuned.core.engine import EngineState, Severity
from autotuned.core.errors import EngineUnreachable
from autotuned.core.settings import LmstudioSettings
from autotuned.engines.lmstudio.access import DEFAULT_URL, AccessProblem, endpoint_of, is_here
from autotuned.engines.lmstudio.engine import LmstudioEngine
from tests.engines.conftest import SystemClock
from tests.engines.lmstudio_case import case_of, opened
from tests.fakes.lmstudio.start import running_lmstudio
from tests.fakes.serving import free_port
from tests.suites.engine_case import answer, ask, text_of

HELLO = "Hello! How can I help you?"
SESAME = "sesame"


def engine_of(home, environment=None, **settings):
    return LmstudioEngine(
        settings=LmstudioSettings(**settings), clock=SystemClock(), home=home, environment=environment or {}
    )


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{SESAME}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def usual_port(monkeypatch):
    """Where LM Studio is looked for when nobody says where it is."""
    port = free_port()
    monkeypatch.setattr("autotuned.engines.lmstudio.access.DEFAULT_URL", f"http://127.0.0.1:{port}")
    return port


async def test_without_a_trace_of_it_there_is_nothing_to_report(tmp_path, usual_port):
    engine = engine_of(tmp_path)
    await engine.refresh()
    assert engine.status().state is EngineState.NOT_INSTALLED
    assert engine.status().findings == ()
    assert engine.status().detail.startswith(f"nothing answers at http://127.0.0.1:{usual_port}, and")
    assert list(await engine.models()) == []
    await engine.close()


async def test_a_stopped_server_is_a_hint_with_its_command(tmp_path):
    (tmp_path / ".lmstudio").mkdir()
    engine = engine_of(tmp_path, url=f"127.0.0.1:{free_port()}")
    await engine.refresh()
    status = engine.status()
    assert status.state is EngineState.UNREACHABLE
    assert status.detail
    [finding] = status.findings
    assert (finding.code, finding.severity) == ("lmstudio-stopped", Severity.INFO)
    assert "lms server start" in finding.advice
    await engine.close()


async def test_a_server_that_is_to_be_there_or_was_there_is_missed(tmp_path, usual_port):
    told, heard = engine_of(tmp_path, url=f"127.0.0.1:{free_port()}"), engine_of(tmp_path)
    async with running_lmstudio(port=usual_port):
        await heard.refresh()
        assert heard.status().state is EngineState.READY
    for engine in (told, heard):
        await engine.refresh()
        assert engine.status().state is EngineState.UNREACHABLE
        assert [finding.code for finding in engine.status().findings] == ["lmstudio-stopped"]
        await engine.close()


async def test_mode_off_sends_nothing():
    async with running_lmstudio() as double:
        engine = engine_of(double.models_folder, url=double.url, mode="off")
        await engine.refresh()
        assert list(await engine.models()) == list(await engine.residents()) == []
        assert engine.status().state is EngineState.OFF
        await engine.close()
        assert (await double.state())["requests"] == []


async def test_something_else_on_the_port_is_not_taken_for_it(tmp_path):
    async def say_hello(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(say_hello, "127.0.0.1", 0)
    async with server:
        engine = engine_of(tmp_path, url=f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await engine.refresh()
        [finding] = engine.status().findings
        assert finding.code == "lmstudio-refuses"
        assert "no LM Studio" in finding.text
        await engine.close()


async def test_a_server_that_hangs_is_waited_for_once_and_shortly(tmp_path):
    async def be_silent(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(be_silent, "127.0.0.1", 0)
    async with server:
        engine = engine_of(tmp_path, url=f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        started = time.monotonic()
        assert list(await engine.models()) == []
        assert time.monotonic() - started < 3.0
        started = time.monotonic()
        assert list(await engine.models()) == []
        assert time.monotonic() - started < 0.5
        assert "did not answer" in engine.status().detail
        await engine.close()


async def test_a_server_that_comes_up_later_is_found(tmp_path):
    port = free_port()
    engine = engine_of(tmp_path, url=f"127.0.0.1:{port}")
    await engine.refresh()
    async with running_lmstudio(port=port):
        await engine.refresh()
        assert engine.status().state is EngineState.READY
        assert [entry.id for entry in await engine.models()] == ["pocket"]
    await engine.close()


# Tokens.


async def test_a_token_opens_the_server(token_file):
    async with running_lmstudio(api_token=SESAME) as double:
        async with opened(double) as engine:
            assert engine.status().state is EngineState.UNREACHABLE
            [finding] = engine.status().findings
            assert "lmstudio.token_file" in finding.text
            assert "LM_API_TOKEN" in finding.text
            assert list(await engine.models()) == []
        async with opened(double, token_file=str(token_file)) as engine:
            model = await (await case_of(double, engine)).load()
            assert text_of(await answer(model, ask("Hello!"))) == HELLO
        async with opened(double, environment={"LM_API_TOKEN": SESAME}) as engine:
            case = await case_of(double, engine)
        async with opened(double, environment={"LM_API_TOKEN": "wrong"}) as engine:
            with pytest.raises(EngineUnreachable, match=r"lmstudio\.token_file") as failure:
                await engine.load(case.entry, case.shape, lambda _: None)
            assert not failure.value.served
            assert "wrong" not in str(failure.value)


async def test_a_token_that_is_mended_is_read_again(token_file):
    async with running_lmstudio(api_token=SESAME) as double:
        token_file.write_text("old")
        async with opened(double, token_file=str(token_file)) as engine:
            assert engine.status().state is EngineState.UNREACHABLE
            token_file.write_text(SESAME)
            await engine.refresh()
            assert engine.status().state is EngineState.READY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_token_that_others_can_read_is_refused(token_file, mode):
    token_file.chmod(mode)
    with pytest.raises(AccessProblem, match="chmod 600"):
        endpoint_of(LmstudioSettings(token_file=str(token_file)), {})


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "no token"), ("x" * 5000, "no token"), ("ü", "no token"), ("a b", "characters")],
)
def test_a_file_without_a_token_is_refused(token_file, content, words):
    token_file.write_text(content)
    with pytest.raises(AccessProblem, match=words) as problem:
        endpoint_of(LmstudioSettings(token_file=str(token_file)), {})
    assert "x" * 10 not in str(problem.value)


def test_a_token_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(AccessProblem, match="cannot be read"):
        endpoint_of(LmstudioSettings(token_file=str(tmp_path / "missing")), {})
    with pytest.raises(AccessProblem, match="not a regular file"):
        endpoint_of(LmstudioSettings(token_file=str(tmp_path)), {})


async def test_bad_access_is_a_finding(token_file, tmp_path):
    token_file.chmod(0o644)
    engine = engine_of(tmp_path, token_file=str(token_file))
    await engine.refresh()
    [finding] = engine.status().findings
    assert "chmod 600" in finding.text
    await engine.close()


def test_the_file_comes_before_the_environment(token_file):
    settings = LmstudioSettings(token_file=str(token_file))
    assert endpoint_of(settings, {"LM_API_TOKEN": "other"}).bearer_token == SESAME
    endpoint = endpoint_of(LmstudioSettings(), {"LM_API_TOKEN": "other"})
    assert (endpoint.url, endpoint.bearer_token) == (DEFAULT_URL, "other")
    assert "other" not in repr(endpoint)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("localhost:1", True),
        ("127.0.0.9:1", True),
        ("[::1]:1", True),
        ("10.0.0.1", False),
        ("studio.lan", False),
    ],
)
def test_a_server_elsewhere_is_not_local(url, here):
    assert is_here(endpoint_of(LmstudioSettings(url=url), {})) is here


def test_an_url_of_no_use_says_so():
    with pytest.raises(AccessProblem, match=r"lmstudio\.url"):
        endpoint_of(LmstudioSettings(url="ftp://x"), {})
