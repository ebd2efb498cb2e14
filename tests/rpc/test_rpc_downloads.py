"""PullModel, DeleteModel and ResolvePull over a socket, and the words of a download on the wire."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from autotune import errors
from autotune.v1 import model_service_pb2 as pb

from autotuned.core.download import DownloadPhase, DownloadProgress
from autotuned.core.errors import SourceUnreachable, Unsupported
from autotuned.core.plan import Reason
from autotuned.rpc.downloads import pull_response
from autotuned.services.pulls import Offered
from autotuned.services.shared_pull import Progressed
from tests.rpc.served import served
from tests.services.pull_house import Server, until
from tests.services.scripted import ScriptedEngine, entry
from tests.services.scripted_downloads import GIB, offer

TINY = {"tiny": offer(missing_bytes=1_500_000)}
HUGE = {"huge": offer("huge", size_bytes=900 * GIB)}


async def until_event(events, kind, done_bytes=None):
    async for event in events:
        if event.WhichOneof("event") == kind and done_bytes in {None, event.progress.done_bytes}:
            return event
    pytest.fail(f"the stream ended without {kind}")


async def fetching(house):
    await until(lambda: any(each.is_fetching for each in house.downloader.downloads))
    return next(each for each in house.downloader.downloads if each.is_fetching)


async def test_a_pull_tells_offer_progress_and_the_model_which_is_listed_at_once():
    async with served(sources=TINY) as house, aclosing(house.client.pull_model("tiny")) as events:
        told = (await until_event(events, "offer")).offer
        download = await fetching(house)
        download.tell(1_000_000)
        progress = (await until_event(events, "progress", 1_000_000)).progress
        download.finish(1_500_000)
        pulled = (await until_event(events, "pulled")).pulled
        assert [event async for event in events] == []
        assert [model.id for model in (await house.client.list_models()).models] == ["tiny"]
        assert (await house.client.get_model("tiny")) == pulled.model
    assert (told.model, told.engine, told.source, told.quantization) == ("tiny", "llamacpp", "tiny", "Q4_K_M")
    assert (told.size_bytes, told.missing_bytes, told.files_count) == (2_000_000, 1_500_000, 2)
    assert (told.folder, told.disk_free_bytes) == ("/models", 100 * GIB)
    assert [reason.code for reason in told.reasons] == ["fits"]
    assert (progress.phase, progress.total_bytes) == (pb.PULL_PHASE_DOWNLOADING, 2_000_000)
    assert not progress.HasField("left_duration")
    assert (pulled.model.id, pulled.fetched_bytes) == ("tiny", 1_500_000)


async def test_a_client_that_leaves_ends_the_download():
    async with served(sources=TINY) as house:
        async with aclosing(house.client.pull_model("tiny")) as events:
            await until_event(events, "progress")
            download = await fetching(house)
        await until(lambda: download.is_gone)
        assert download.is_cancelled


async def test_a_client_whose_connection_breaks_ends_the_download():
    async with served(sources=TINY) as house:
        events = house.client.pull_model("tiny")
        await until_event(events, "progress")
        download = await fetching(house)
        await house.client.close()
        await until(lambda: download.is_gone)
        assert download.is_cancelled
        with pytest.raises((errors.AutotuneError, asyncio.CancelledError)):
            await until_event(events, "pulled")


async def test_a_client_that_leaves_while_the_source_is_asked():
    async with served(sources=TINY) as house:
        house.downloader.may_find.clear()
        async with aclosing(house.client.pull_model("tiny")) as events:
            waiting = asyncio.create_task(anext(events))
            await until(lambda: house.downloader.finding)
            waiting.cancel()
            await asyncio.wait([waiting])
        await until(lambda: not house.downloader.running)
        assert house.downloader.cancelled_finds_count == 1


async def test_a_client_that_does_not_read_holds_nobody_up():
    async with served(sources=TINY) as house:
        slow = house.client.pull_model("tiny")
        await until_event(slow, "offer")
        async with aclosing(house.client.pull_model("tiny")) as quick:
            await until_event(quick, "offer")
            download = await fetching(house)
            for done_bytes in range(0, 2_000_000, 1_000):
                download.tell(done_bytes)
            await until_event(quick, "progress", done_bytes)
            download.finish()
            await until_event(quick, "pulled")
        assert (await until_event(slow, "pulled")).pulled.model.id == "tiny"
        await slow.aclose()


async def test_what_is_too_large_is_a_question():
    async with served(sources=HUGE) as house:
        with pytest.raises(errors.ModelTooLarge) as caught:
            [event async for event in house.client.pull_model("huge")]
        assert int(caught.value.metadata["requiredBytes"]) > int(caught.value.metadata["capacityBytes"])
        suggestion = caught.value.metadata["suggestion"]
        best = (await house.client.recommend_models()).recommendations[0]
        assert suggestion == best.pull_name
        async with aclosing(house.client.pull_model("huge", allow_too_large=True)) as events:
            told = (await until_event(events, "offer")).offer
            (await fetching(house)).finish()
            await until_event(events, "pulled")
        assert [reason.code for reason in told.reasons] == ["too-large"]


async def test_what_goes_wrong_has_its_reason():
    async with served(sources={"away": SourceUnreachable("The registry does not answer.")}) as house:
        for name, engine, error in (
            ("away", "", errors.SourceUnreachable),
            ("nothing", "", errors.ModelNotFound),
            ("", "", errors.FieldInvalid),
            ("tiny", "nowhere", errors.FieldInvalid),
            ("tiny", "ollama", errors.FieldInvalid),
        ):
            with pytest.raises(error):
                [event async for event in house.client.pull_model(name, engine)]


async def test_the_end_of_the_daemon_is_told_and_the_download_ends():
    server = Server()
    async with served(ScriptedEngine(entries=()), server, sources=TINY) as house:
        own, other = (house.client.pull_model("tiny", engine) for engine in ("llamacpp", "ollama"))
        await until_event(own, "progress")
        await until_event(other, "progress")
        download = await fetching(house)
        await until(lambda: server.pulling)
        house.stop.set()
        for events in (own, other):
            with pytest.raises(errors.ShuttingDown):
                await until_event(events, "pulled")
        assert download.is_gone
        assert server.pulling == []


async def test_what_a_server_pulls_has_no_folder_and_no_room_of_this_machine():
    server = Server()
    async with (
        served(ScriptedEngine(entries=()), server, sources=TINY) as house,
        aclosing(house.client.pull_model("tiny")) as events,
    ):
        told = (await until_event(events, "offer")).offer
        await until(lambda: server.pulling)
        server.pulling[0].tell(5, 10, DownloadPhase.VERIFYING)
        progress = (await until_event(events, "progress", 5)).progress
        server.pulling[0].finish(fetched_bytes=0)
        pulled = (await until_event(events, "pulled")).pulled
    assert (told.engine, told.folder, told.HasField("disk_free_bytes")) == ("ollama", "", False)
    assert (progress.phase, progress.total_bytes) == (pb.PULL_PHASE_VERIFYING, 10)
    assert (pulled.model.places[0].engine, pulled.fetched_bytes) == ("ollama", 0)


async def test_a_model_is_deleted_and_what_stays_is_told():
    both = ScriptedEngine(entries=(entry("pocket"), entry("zoo")))
    server = Server(entries=(replace(entry("pocket"), engine="ollama"),))

    async def refuse(_entry):
        raise Unsupported('"pocket" is not ours; delete it yourself.')

    server.delete = refuse
    async with served(both, server) as house:
        removed = await house.client.delete_model("pocket")
        assert (removed.freed_bytes, list(removed.paths)) == (2_000_000, ["/nowhere/pocket.gguf"])
        assert [(reason.code, reason.text) for reason in removed.kept] == [
            ("kept", '"pocket" is not ours; delete it yourself.')
        ]
        with pytest.raises(errors.Unsupported):
            await house.client.delete_model("pocket", "ollama")
        for name, error in (("pocked", errors.ModelNotFound), ("", errors.FieldInvalid)):
            with pytest.raises(error):
                await house.client.delete_model(name)
        assert [model.id for model in (await house.client.list_models()).models] == ["pocket", "zoo"]


async def test_a_name_is_resolved_without_asking_anybody():
    async with served() as house:
        found = await house.client.resolve_pull("llama3.2:3b", "mlx")
        assert "hf:mlx-community/Llama-3.2-3B-Instruct-4bit" in found.sources
        assert {reason.code for reason in found.reasons} <= {"registry", "rule"}
        assert list((await house.client.resolve_pull("qwen3:8b")).sources) == ["qwen3:8b"]
        with pytest.raises(errors.FieldInvalid):
            await house.client.resolve_pull("two words")
        assert house.downloader.asked == []


@pytest.mark.parametrize("phase", DownloadPhase)
def test_every_phase_has_its_name_on_the_wire(phase):
    progress = DownloadProgress(phase=phase, done_bytes=1, total_bytes=2, detail="why")
    told = pull_response(Progressed(progress=progress), None).progress
    assert pb.PullPhase.Name(told.phase) == f"PULL_PHASE_{phase.name}"
    assert (told.done_bytes, told.total_bytes, told.detail) == (1, 2, "why")


def test_time_left_is_absent_while_nobody_can_tell():
    progress = DownloadProgress(phase=DownloadPhase.DOWNLOADING, done_bytes=1, total_bytes=2)
    for left_seconds, seconds in ((0.0, 0.0), (2.5, 2.5)):
        step = Progressed(progress=progress, bytes_per_second=7, left_seconds=left_seconds)
        told = pull_response(step, None).progress
        assert (told.bytes_per_second, told.left_duration.ToTimedelta().total_seconds()) == (7, seconds)
        assert told.HasField("left_duration")
    assert not pull_response(Progressed(progress=progress), None).progress.HasField("left_duration")


def test_room_that_nobody_knows_is_absent_and_none_is_zero():
    for free_bytes in (None, 0, 5):
        what = Offered(
            offer=offer(free_bytes=free_bytes), source="tiny", reasons=(Reason("fits", "It does."),)
        )
        told = pull_response(what, None).offer
        assert (told.HasField("disk_free_bytes"), told.disk_free_bytes) == (
            free_bytes is not None,
            free_bytes or 0,
        )
        assert [(reason.code, reason.text) for reason in told.reasons] == [("fits", "It does.")]
