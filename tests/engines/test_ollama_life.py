"""What happens to a model that others can reach, too: reloads, unloads, deaths and silence."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from autotuned.core.engine import EngineState
from autotuned.core.errors import EngineUnreachable, ModelLoadFailed, ModelNotFound
from autotuned.core.generation import TextDelta
from autotuned.core.model import LoadPhase
from tests.engines.ollama_servers import connected, entry_of
from tests.engines.processes import until
from tests.engines.scripted_server import chunk
from tests.engines.shapes import SHAPE, shape
from tests.fakes.ollama.model_store import add_model
from tests.fakes.ollama.running import running_ollama
from tests.suites.engine_case import answer, ask, finish_of, text_of

# The first context that an application here wants; the other one says nothing and gets 4,096.
EXPLICIT = 2048


@pytest.fixture(scope="module")
async def shared_server(tmp_path_factory):
    """A double for all tests that leave it as it was."""
    async with running_ollama(tmp_path_factory.mktemp("ollama")) as running:
        yield running


@pytest.fixture
async def server(shared_server):
    """The shared one, with nothing loaded and nothing that goes wrong."""
    yield shared_server
    await shared_server.order("clear")
    await shared_server.order("delay", reload_seconds=0.05)
    for runner in (await shared_server.page())["runners"]:
        await shared_server.client.post(
            "/api/chat", json={"model": runner["model"], "messages": [], "keep_alive": 0}
        )
    await until(lambda: _is_empty(shared_server), "nothing is loaded")


@pytest.fixture
async def engine(server, clock):
    """Attached to it."""
    async with connected(server.url, clock) as attached:
        yield attached


@pytest.fixture
async def own_server(tmp_path, paths):
    """A double that the test may break; what it leaves behind then goes with the folder."""
    async with running_ollama(tmp_path, environment={"TMPDIR": str(paths.runtime)}) as running:
        yield running


async def loads_of(server):
    """Loads so far, and those of them that took the place of a runner."""
    page = await server.page()
    return page["loads"], page["reloads"]


async def load(engine, model_id="pocket:latest", **changes):
    return await engine.load(await entry_of(engine, model_id), shape(**changes), lambda _: None)


async def raw_chat(server, **options):
    body = {
        "model": "pocket",
        "messages": [{"role": "user", "content": "Hello!"}],
        "stream": False,
        "shift": False,
        "options": {"temperature": 0, **options},
    }
    (await server.client.post("/api/chat", json=body)).raise_for_status()


async def test_applications_that_alternate_cost_no_reload_through_the_daemon(server, engine):
    loads, reloads = await loads_of(server)
    model = await load(engine)
    for turn in range(6):
        wanted = {"context_tokens": EXPLICIT} if turn % 2 else {}
        assert text_of(await answer(model, ask("Hello!", **wanted), f"app {turn % 2}"))
    assert await loads_of(server) == (loads + 1, reloads)


async def test_applications_that_alternate_cost_a_reload_each_time_without_it(server):
    loads, reloads = await loads_of(server)
    for turn in range(6):
        await raw_chat(server, **({"num_ctx": EXPLICIT} if turn % 2 else {}))
    assert await loads_of(server) == (loads + 6, reloads + 5)


async def test_a_loaded_model_stays_until_it_is_unloaded(server, engine):
    model = await load(engine)
    await answer(model, ask("Hello!"))
    await engine.refresh()
    resident = (await engine.residents())[0]
    assert (resident.model_id, resident.context_tokens, resident.expires_at) == ("pocket:latest", 2048, 0.0)
    assert resident.memory_bytes > model.footprint.weights_bytes
    assert resident.accelerator_bytes == 0
    assert model.footprint.total_bytes == resident.memory_bytes
    await model.unload()
    assert (await server.page())["runners"] == []
    assert await model.wait_gone() == "it was unloaded"


async def test_a_cancelled_load_is_taken_back(server, engine):
    entry = await entry_of(engine)
    reached = asyncio.Event()

    def notice(progress):
        if progress.phase is LoadPhase.ALLOCATING:
            reached.set()

    loading = asyncio.create_task(engine.load(entry, SHAPE, notice))
    await reached.wait()
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert (await server.page())["runners"] == []
    assert text_of(await answer(await load(engine), ask("Hello!"))) == "Hello! How can I help you?"


async def test_a_load_that_takes_too_long_is_taken_back(server, clock):
    async with connected(server.url, clock, load_timeout_seconds=0.3) as engine:
        await server.order("hang", path="/api/chat")
        with pytest.raises(ModelLoadFailed, match=r"load_timeout_seconds"):
            await load(engine)
    assert (await server.page())["runners"] == []


async def test_another_clients_context_is_a_finding_and_costs_one_reload(server, engine):
    model = await load(engine)
    await raw_chat(server, num_ctx=1024)
    await engine.refresh()
    finding = engine.status().findings[0]
    assert finding.code == "ollama-shape-flipped"
    assert '"pocket:latest" with 1,024 tokens of context' in finding.text
    assert "2,048" in finding.text
    assert not model.is_gone
    before = (await server.page())["reloads"]
    for _ in range(2):
        assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"
    assert (await server.page())["reloads"] == before + 1
    await model.unload()
    assert engine.status().findings == ()


async def test_a_load_that_a_request_waited_for_is_a_finding(server, engine):
    model = await load(engine)
    await server.order("delay", reload_seconds=1.0)
    await raw_chat(server, num_ctx=1024)
    await answer(model, ask("Hello!"))
    assert "with other options" in engine.status().findings[0].text
    assert not model.is_gone


async def test_a_model_that_others_unload_is_gone(server, engine):
    model = await load(engine)
    await server.client.post("/api/chat", json={"model": "pocket", "messages": [], "keep_alive": 0})
    await until(lambda: _is_empty(server), "it was unloaded")
    await engine.refresh()
    assert "another program" in await model.wait_gone()
    with pytest.raises(EngineUnreachable, match="another program") as refusal:
        await answer(model, ask("Hello!"))
    assert refusal.value.served is False
    await model.unload()


async def test_what_others_loaded_can_be_unloaded_too(server, engine):
    assert await engine.unload_resident("pocket:latest") is False
    await raw_chat(server, num_ctx=1024)
    assert await engine.unload_resident("pocket:latest") is True
    assert await _is_empty(server)
    model = await load(engine)
    assert await engine.unload_resident("pocket:latest") is True
    assert await model.wait_gone() == "it was unloaded"
    await server.order("close", path="/api/ps")
    with pytest.raises(EngineUnreachable):
        await engine.unload_resident("pocket:latest")


async def _is_empty(server):
    return not (await server.page())["runners"]


async def test_the_servers_death_is_every_models_end(own_server, clock):
    async with connected(own_server.url, clock) as engine:
        await _dies_in_an_answer(own_server, engine)


async def _dies_in_an_answer(server, engine):
    model = await load(engine)
    async with aclosing(model.generate(ask("Count from 1 to 79."), "talk")) as events:
        await anext(events)
        await server.order("die", what="server")
        with pytest.raises(EngineUnreachable) as refusal:
            async for _ in events:
                pass
    assert refusal.value.served is True
    assert "nothing answers" in await model.wait_gone()
    with pytest.raises(EngineUnreachable) as refusal:
        await answer(model, ask("Hello!"))
    assert refusal.value.served is False
    assert engine.status().state is EngineState.UNREACHABLE


async def test_a_request_that_is_not_taken_was_not_served(own_server, clock):
    async with connected(own_server.url, clock) as engine:
        model = await load(engine)
        await own_server.order("die", what="server")
        await own_server.process.wait()
        assert not model.is_gone
        with pytest.raises(EngineUnreachable) as refusal:
            await answer(model, ask("Hello!"))
        assert refusal.value.served is False
        assert model.is_gone


async def test_a_runner_that_dies_breaks_its_answer_and_comes_back(server, engine):
    model = await load(engine)
    await server.order("delay", line_seconds=0.01)
    async with aclosing(model.generate(ask("Count from 1 to 79."), "talk")) as events:
        await anext(events)
        await server.order("die", what="runners")
        with pytest.raises(EngineUnreachable):
            async for _ in events:
                pass
    await server.order("delay", line_seconds=0.0)
    assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"


@pytest.mark.parametrize(("order", "words"), [("close", "broke off its answer"), ("error", "no room left")])
async def test_an_answer_that_breaks_says_so(server, engine, order, words):
    model = await load(engine)
    await server.order(order, path="/api/chat", after=2, message="no room left")
    async with aclosing(model.generate(ask("Count from 1 to 9."), "talk")) as events:
        assert isinstance(await anext(events), TextDelta)
        with pytest.raises(EngineUnreachable, match=words):
            await _rest_of(events)
    assert not model.is_gone
    assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"


async def _rest_of(events):
    async for event in events:
        assert isinstance(event, TextDelta)


async def test_silence_has_an_end(server, clock):
    async with connected(server.url, clock, silence_timeout_seconds=0.3) as engine:
        model = await load(engine)
        await server.order("hang", path="/api/chat", after=1)
        with pytest.raises(EngineUnreachable, match="fell silent"):
            await answer(model, ask("Count from 1 to 9."))
        await server.order("clear")


async def test_a_stream_that_cannot_be_read_or_has_no_end_is_broken(server, engine):
    model = await load(engine)
    for body, words in ((b"{nonsense\n", "cannot be read"), (b'{"response":"x"}', "too early")):
        async with _speaking(chunk(body) + b"0\r\n\r\n") as endpoint:
            model._requests._server.endpoint, real = endpoint, model._requests._server.endpoint
            with pytest.raises(EngineUnreachable, match=words):
                await answer(model, ask("Hello!"))
            model._requests._server.endpoint = real


def _speaking(body):
    """A server that says this to everybody."""
    from contextlib import asynccontextmanager

    from autotuned.engines.endpoint import Endpoint
    from tests.engines.scripted_server import HEAD

    @asynccontextmanager
    async def speaking():
        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD + body)
            await writer.drain()
            writer.close()

        listener = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with listener:
            yield Endpoint(host="127.0.0.1", port=listener.sockets[0].getsockname()[1])

    return speaking()


async def test_a_model_that_was_deleted_is_not_found(own_server, clock):
    async with connected(own_server.url, clock) as engine:
        entry = await entry_of(engine)
        model = await load(engine)
        await own_server.client.request("DELETE", "/api/delete", json={"model": "pocket"})
        with pytest.raises(ModelNotFound):
            await answer(model, ask("Hello!"))
        with pytest.raises(ModelNotFound):
            await engine.load(entry, SHAPE, lambda _: None)
        await engine.refresh()
        assert await engine.models() == ()


async def test_closing_in_prefill_stops_the_server_and_keeps_what_was_done(server, engine):
    cancelled = (await server.page())["cancelled"]
    model = await load(engine, context_tokens=8192)
    request = ask("Repeat: " + "la lo lu " * 800, max_reply_tokens=1)
    for use in (model.generate, model.prefill):
        asking = asyncio.create_task(_drain(use(request, "talk")))
        await until(lambda: _is_busy(server), "the request has come")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: _is_idle(server), "nothing runs")
    assert (await server.page())["cancelled"] == cancelled + 2
    await model.unload()


async def _drain(events):
    async with aclosing(events):
        async for _ in events:
            pass


async def _is_busy(server):
    return (await server.page())["active_requests"] == 1


async def _is_idle(server):
    return (await server.page())["active_requests"] == 0


async def test_names_that_share_a_file_share_its_runner(server, engine):
    add_model(server.models, "twin", parameters={"stop": ["5"], "num_predict": 3})
    await engine.refresh()
    loads, reloads = await loads_of(server)
    first, second = await load(engine), await load(engine, "twin:latest")
    assert await loads_of(server) == (loads + 1, reloads)
    assert not first.is_gone
    # A Modelfile's own limit and stop sequence: the one is overruled, the other kept beside the client's.
    assert text_of(await answer(second, ask("Count from 1 to 9."))).strip() == "1 2 3 4"
    assert (
        text_of(await answer(second, ask("Count from 1 to 9.", stop_sequences=("7",)))).strip() == "1 2 3 4"
    )
    await first.unload()
    assert len((await server.page())["runners"]) == 1
    assert text_of(await answer(second, ask("Hello!"))) == "Hello! How can I help you?"
    larger = await load(engine, context_tokens=4096)
    assert "which has the same file" in await second.wait_gone()
    await larger.unload()
    assert (await server.page())["runners"] == []
    await server.client.request("DELETE", "/api/delete", json={"model": "twin"})


async def test_an_older_version_tells_less_and_says_so(tmp_path, clock):
    async with (
        running_ollama(tmp_path, version="0.12.7") as server,
        connected(server.url, clock) as engine,
    ):
        able = engine.capabilities()
        assert (able.logprobs, able.counts_cached) == (False, False)
        model = await load(engine)
        for _ in range(2):
            usage = finish_of(await answer(model, ask("Hello!"))).usage
            assert usage.cached_tokens == 0
            assert usage.prompt_tokens > 0


async def test_without_an_answer_nothing_is_declared(clock):
    async with connected("http://127.0.0.1:9", clock) as engine:
        able = engine.capabilities()
        assert (able.logprobs, able.counts_cached, able.is_local) == (False, False, True)
        assert await engine.unload_resident("pocket:latest") is False
        assert able.sampling >= {"temperature", "min_p", "seed"}
        assert "logit_bias" not in able.sampling


async def test_a_server_that_came_back_has_its_models_at_once(tmp_path, paths, clock):
    private = {"TMPDIR": str(paths.runtime)}
    async with (
        running_ollama(tmp_path, environment=private) as server,
        connected(server.url, clock) as engine,
    ):
        entry = await entry_of(engine)
        server.process.kill()
        await server.process.wait()
        await engine.refresh()
        assert await engine.models() == ()
        port = int(server.url.rpartition(":")[2])
        async with running_ollama(tmp_path, models=server.models, port=port, environment=private):
            looking = asyncio.create_task(engine.refresh())
            while engine.status().state is not EngineState.READY:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            # The look is not over, and what there was before is nothing.
            assert [each.id for each in await engine.models()] == [entry.id]
            await looking


async def test_what_was_unloaded_is_told_of_no_more(engine, server):
    await server.client.post("/api/generate", json={"model": "pocket"})
    await engine.refresh()
    assert [resident.model_id for resident in await engine.residents()] == ["pocket:latest"]
    assert await engine.unload_resident("pocket:latest")
    assert await engine.residents() == ()


async def test_what_others_had_in_memory_stays_there_when_the_daemon_ends(server, clock):
    loads, reloads = await loads_of(server)
    await raw_chat(server, num_ctx=EXPLICIT)
    async with connected(server.url, clock) as engine:
        model = await load(engine)
        assert (await engine.residents())[0].expires_at > 0
        await engine.refresh()
        assert (await engine.residents())[0].expires_at == 0
        assert await loads_of(server) == (loads + 1, reloads)
    assert await model.wait_gone() == "the daemon let go of it"
    async with connected(server.url, clock) as engine:
        (resident,) = await engine.residents()
        # As long as Ollama keeps what nobody says anything of, not for ever.
        assert 0 < resident.expires_at - clock.now() <= 300
        model = await load(engine)
        await model.unload()
        async with asyncio.timeout(5):
            while (await server.page())["runners"]:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)


async def test_what_the_daemon_loaded_in_their_place_is_its_own(server, clock):
    await raw_chat(server, num_ctx=1024)
    async with connected(server.url, clock) as engine:
        await load(engine)
    assert (await server.page())["runners"] == []


async def test_a_list_that_is_not_complete_is_not_taken_for_all_there_is(server, clock):
    await server.order("hang", path="/api/show")
    async with connected(server.url, clock) as engine:
        assert await engine.models() == ()
        assert engine.status().state is EngineState.STARTING
        assert engine.status().detail == "it has not told all of its models yet"
        await server.order("clear")
        await engine.refresh()  # joins the look that hung, if that is still under way
        await engine.refresh()
        assert engine.status().state is EngineState.READY
