"""Pulls: who downloads what, what is refused before anybody is asked, and what is tried in turn."""

from __future__ import annotations

import pytest

from autotuned.core.engine import EngineState
from autotuned.core.errors import (
    EngineUnreachable,
    FieldInvalid,
    ModelNotFound,
    SourceDenied,
    SourceUnreachable,
    Unsupported,
)
from autotuned.services.pulls import Offered, Pulled
from tests.services.pull_house import (
    Caller,
    PullHouse,
    Server,
    Surroundings,
    downloaded,
    pulling,
    until,
)
from tests.services.scripted import ScriptedEngine
from tests.services.scripted_downloads import offer

QWEN = {"qwen3:8b": offer("qwen3:8b")}
HUB = "hf:Qwen/Tiny-GGUF:Q4_K_M"
FIRST, SECOND = "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit", "mlx-community/Llama-3.1-8B-Instruct-4bit"


def mlx():
    return ScriptedEngine(name="mlx", entries=())


async def test_without_a_server_it_comes_for_the_own_engine():
    async with PullHouse(mlx(), sources=QWEN) as house:
        pulled = await downloaded(house, Caller(house.pulls, "qwen3:8b"))
        assert (pulled.listing.model.id, pulled.listing.entry.engine) == ("qwen3:8b", "llamacpp")
        assert pulled.listing.entry in await house.own.models()


async def test_a_server_that_is_there_pulls_by_itself():
    server = Server()
    async with PullHouse(server, sources=QWEN) as house:
        caller = Caller(house.pulls, "qwen3:8b")
        pull = await pulling(server)
        (download,) = house.downloader.downloads
        assert download.is_gone  # nothing of ours waits beside the server
        assert pull.name == "qwen3:8b"
        pull.tell(1_000_000, 2_000_000)
        await caller.until(lambda each: each.told[-1].progress.done_bytes == 1_000_000)
        pull.finish(fetched_bytes=1_500_000)
        await caller.task
        assert download.fetches_count == 0
    told = caller.told[0].offer
    assert (told.engine, told.folder, told.free_bytes, told.missing_bytes) == ("ollama", "", None, 2_000_000)
    pulled = caller.told[-1]
    assert (pulled.listing.entry.engine, pulled.fetched_bytes) == ("ollama", 1_500_000)


async def test_leaving_ends_the_pull_of_a_server():
    server = Server()
    async with PullHouse(server, sources=QWEN) as house:
        caller = Caller(house.pulls, "qwen3:8b")
        await pulling(server)
        await caller.leave()
        await until(lambda: not server.pulling)
    assert server.cancelled_pulls == ["qwen3:8b"]


@pytest.mark.parametrize(
    ("name", "engine", "prefer"),
    [
        ("qwen3:8b", "", "llamacpp"),
        ("qwen3:8b", "llamacpp", "auto"),
        (HUB, "", "auto"),
        (HUB, "", "ollama"),
    ],
)
async def test_what_comes_for_the_own_engine_though_a_server_is_there(name, engine, prefer):
    server = Server()
    sources = QWEN | {HUB: offer("tiny")}
    async with PullHouse(server, sources=sources, surroundings=Surroundings(prefer=prefer)) as house:
        pulled = await downloaded(house, Caller(house.pulls, name, engine))
    assert pulled.listing.entry.engine == "llamacpp"


async def test_the_preferred_server_pulls():
    first, second = Server(name="first"), Server(name="second")
    async with PullHouse(first, second, sources=QWEN, surroundings=Surroundings(prefer="second")) as house:
        caller = Caller(house.pulls, "qwen3:8b")
        (await pulling(second)).finish()
        await caller.task
        assert first.pulling == []
    async with PullHouse(first, second, sources=QWEN) as house:
        caller = Caller(house.pulls, "qwen3:8b")
        (await pulling(first)).finish()
        await caller.task


@pytest.mark.parametrize(
    "server",
    [
        Server(state=EngineState.UNREACHABLE),
        Server(state=EngineState.OFF),
        Server(is_local=False),
        Server(pulls=False),
    ],
)
async def test_servers_that_are_not_taken_by_themselves(server):
    async with PullHouse(server, sources=QWEN) as house:
        pulled = await downloaded(house, Caller(house.pulls, "qwen3:8b"))
    assert pulled.listing.entry.engine == "llamacpp"


async def test_a_server_elsewhere_pulls_when_it_is_named_and_nobody_here_is_asked():
    server = Server(is_local=False)
    async with PullHouse(server, sources=QWEN) as house:
        caller = Caller(house.pulls, "qwen3:8b", "ollama")
        (await pulling(server)).finish()
        await caller.task
        assert house.downloader.asked == []
    assert caller.all(Offered) == []
    assert caller.told[-1].listing.entry.engine == "ollama"


@pytest.mark.parametrize(
    "error",
    [SourceUnreachable("No network."), SourceDenied("No token."), Unsupported("llama.cpp cannot run it.")],
)
async def test_a_server_may_reach_and_run_what_the_daemon_does_not(error):
    server = Server()
    async with PullHouse(server, sources={"qwen3:8b": error}) as house:
        caller = Caller(house.pulls, "qwen3:8b")
        (await pulling(server)).finish()
        await caller.task
        assert house.downloader.downloads == []
    assert caller.all(Offered) == []
    assert len(caller.all(Pulled)) == 1
    async with PullHouse(sources={"qwen3:8b": error}) as house:
        with pytest.raises(type(error)):
            await Caller(house.pulls, "qwen3:8b").task


async def test_what_the_source_does_not_have_no_server_is_asked_for():
    server = Server()
    async with PullHouse(server) as house:
        with pytest.raises(ModelNotFound):
            await Caller(house.pulls, "qwen3:8b").task
    assert server.cancelled_pulls == server.pulling == []


async def test_a_repository_of_hugging_face_has_a_name_of_its_own_on_a_server():
    server = Server()
    sources = {HUB: offer("Tiny-Q4_K_M"), "hf:Qwen/Tiny-GGUF": offer("Tiny-Q4_K_M")}
    async with PullHouse(server, sources=sources) as house:
        for name, named in (
            (HUB, "hf.co/Qwen/Tiny-GGUF:Q4_K_M"),
            ("hf:Qwen/Tiny-GGUF", "hf.co/Qwen/Tiny-GGUF"),
        ):
            caller = Caller(house.pulls, name, "ollama")
            pull = await pulling(server)
            assert pull.name == named
            pull.finish()
            await caller.task
            assert caller.told[-1].listing.model.id == named
        assert caller.told[0].offer.model_id == "hf.co/Qwen/Tiny-GGUF:latest"


REFUSED = [
    ("qwen3:8b", "nowhere", FieldInvalid, 'no engine "nowhere"; use one of: llamacpp, mlx, ollama, still'),
    ("qwen3:8b", "ollama", EngineUnreachable, "ollama cannot pull: nothing answers; leave the engine out"),
    ("qwen3:8b", "still", Unsupported, "still does not download for others"),
    ("", "", FieldInvalid, "it is empty"),
    ("two words", "", FieldInvalid, "is no name of a model"),
    ("hf:Qwen", "", FieldInvalid, "names no repository"),
    ("nobody/knows", "mlx", ModelNotFound, 'No MLX repository is known for "nobody/knows"'),
]


@pytest.mark.parametrize(("name", "engine", "error", "text"), REFUSED)
async def test_what_is_refused_before_anybody_is_asked(name, engine, error, text):
    away = Server(state=EngineState.UNREACHABLE, detail="nothing answers")
    async with PullHouse(mlx(), away, Server(name="still", pulls=False), sources=QWEN) as house:
        with pytest.raises(error, match=text):
            await Caller(house.pulls, name, engine).task
        assert house.downloader.asked == []


async def test_a_server_that_says_nothing_of_why_it_is_not_ready():
    async with PullHouse(Server(state=EngineState.OFF)) as house:
        with pytest.raises(EngineUnreachable, match="ollama cannot pull: it is off;"):
            await Caller(house.pulls, "qwen3:8b", "ollama").task


@pytest.mark.parametrize("engine", ["", "ollama"])
async def test_a_server_that_nobody_has_seen_yet_is_looked_at(engine):
    server = Server(state=EngineState.UNREACHABLE, found=EngineState.READY)
    async with PullHouse(server, sources=QWEN) as house:
        caller = Caller(house.pulls, "qwen3:8b", engine)
        (await pulling(server)).finish()
        await caller.task
        again = Caller(house.pulls, "qwen3:8b", engine)
        (await pulling(server)).finish()
        await again.task
        assert server.looks_count == 1  # it is ready


async def test_a_server_that_starts_is_waited_for_where_it_is_named():
    server = Server(state=EngineState.STARTING)
    async with PullHouse(server, sources=QWEN) as house:
        caller = Caller(house.pulls, "qwen3:8b", "ollama")
        pull = await pulling(server)
        server.state = EngineState.READY
        pull.finish()
        await caller.task
    assert caller.told[-1].listing.entry.engine == "ollama"


async def test_mlx_repositories_are_tried_in_turn():
    async with PullHouse(mlx(), sources={f"hf:{SECOND}": offer(SECOND, "mlx")}) as house:
        pulled = await downloaded(house, Caller(house.pulls, "llama3.1:8b", "mlx"))
        assert house.downloader.asked == [f"hf:{FIRST}", f"hf:{SECOND}"]
    assert (pulled.listing.model.id, pulled.listing.entry.engine) == (SECOND, "mlx")


async def test_none_of_the_mlx_repositories_is_there():
    async with PullHouse(mlx()) as house:
        with pytest.raises(ModelNotFound, match=f"hf:{SECOND} is not there"):
            await Caller(house.pulls, "llama3.1:8b", "mlx").task
        assert len(house.downloader.asked) == 2


async def test_another_repository_is_no_answer_to_a_source_that_does_not_answer():
    async with PullHouse(mlx(), sources={f"hf:{FIRST}": SourceUnreachable("Away.")}) as house:
        with pytest.raises(SourceUnreachable):
            await Caller(house.pulls, "llama3.1:8b", "mlx").task
        assert house.downloader.asked == [f"hf:{FIRST}"]


async def test_what_came_and_is_not_listed_is_not_followed_by_another_download():
    sources = {f"hf:{name}": offer(name, "mlx") for name in (FIRST, SECOND)}
    async with PullHouse(mlx(), sources=sources) as house:
        house.downloader.arrive = lambda _: None
        with pytest.raises(ModelNotFound, match=f'"{FIRST}" came, but mlx does not list it: .*; choose'):
            await downloaded(house, Caller(house.pulls, "llama3.1:8b", "mlx"))
        assert house.downloader.asked == [f"hf:{FIRST}"]


async def test_files_for_another_engine_than_was_asked_for():
    sources = {f"hf:{FIRST}": offer(FIRST, "mlx"), HUB: offer("tiny")}
    async with PullHouse(mlx(), sources=sources) as house:
        with pytest.raises(Unsupported, match=f"hf:{FIRST} is for the engine mlx, not for llamacpp"):
            await Caller(house.pulls, f"hf:{FIRST}", "llamacpp").task
        with pytest.raises(Unsupported, match="is for the engine llamacpp, not for mlx"):
            await Caller(house.pulls, HUB, "mlx").task
        await until(lambda: not house.downloader.running)
        assert [each.fetches_count for each in house.downloader.downloads] == [0, 0]
