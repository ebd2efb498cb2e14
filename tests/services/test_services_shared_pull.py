"""One download for everybody who asks for the same: who comes, who leaves, who is slow, and how it ends."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing

import pytest

from autotuned.core.download import DownloadPhase
from autotuned.core.errors import (
    DownloadCorrupt,
    ModelNotFound,
    ModelTooLarge,
    ShuttingDown,
    SourceUnreachable,
    StorageFull,
)
from autotuned.services.pulls import Offered, Pulled
from autotuned.services.shared_pull import Progressed
from tests.services.pull_house import PATIENCE_SECONDS, Caller, PullHouse, Server, until
from tests.services.scripted_downloads import GIB, offer

TINY = {"tiny": offer()}
HUGE = {"huge": offer("huge", size_bytes=900 * GIB)}


def shown(caller):
    return [event.progress.done_bytes for event in caller.all(Progressed)]


async def fetching(house, number=1):
    """The download, once it is the last of so many and is fetched."""
    await until(
        lambda: len(house.downloader.downloads) == number and house.downloader.downloads[-1].is_fetching
    )
    return house.downloader.downloads[-1]


async def sees(caller, done_bytes):
    await caller.until(lambda each: done_bytes in shown(each))


async def test_two_share_one_download_and_both_are_told_all_of_it():
    async with PullHouse(sources=TINY) as house:
        callers = [Caller(house.pulls, "tiny") for _ in range(2)]
        download = await fetching(house)
        for done_bytes in (1, 2):
            download.tell(done_bytes)
            await asyncio.gather(*(sees(caller, done_bytes) for caller in callers))
        download.finish()
        await asyncio.gather(*(caller.task for caller in callers))
        assert house.downloader.asked == ["tiny"]
        assert download.is_gone
    for caller in callers:
        assert shown(caller) == [0, 1, 2]
        assert isinstance(caller.told[0], Offered)
        assert caller.all(Pulled) == [caller.told[-1]]
        assert (caller.told[-1].listing.model.id, caller.told[-1].fetched_bytes) == ("tiny", 2_000_000)


async def test_the_usual_tag_can_be_left_out_of_the_name():
    async with PullHouse(sources={"tiny": offer("tiny:latest")}) as house:
        callers = [Caller(house.pulls, name) for name in ("tiny", "tiny:latest")]
        (await fetching(house)).finish()
        await asyncio.gather(*(caller.task for caller in callers))
        assert house.downloader.asked == ["tiny"]


async def test_different_engines_share_nothing():
    server = Server()
    async with PullHouse(server, sources=TINY) as house:
        mine, other = Caller(house.pulls, "tiny", "llamacpp"), Caller(house.pulls, "tiny", "ollama")
        await until(lambda: server.pulling)
        await until(lambda: any(each.is_fetching for each in house.downloader.downloads))
        next(each for each in house.downloader.downloads if each.is_fetching).finish()
        server.pulling[0].finish()
        await asyncio.gather(mine.task, other.task)
    assert (mine.told[-1].listing.entry.engine, other.told[-1].listing.entry.engine) == ("llamacpp", "ollama")


async def test_who_comes_later_sees_at_once_how_far_it_is():
    async with PullHouse(sources=TINY) as house:
        first = Caller(house.pulls, "tiny")
        download = await fetching(house)
        download.tell(1_000_000)
        await sees(first, 1_000_000)
        late = Caller(house.pulls, "tiny")
        await late.until(lambda each: each.all(Progressed))
        assert shown(late) == [1_000_000]
        assert late.all(Offered) == first.all(Offered)
        download.finish()
        await asyncio.gather(first.task, late.task)


async def test_who_is_slow_sees_the_newest_and_misses_what_was_before():
    async with (
        PullHouse(sources=TINY) as house,
        aclosing(house.pulls.pull("tiny", "", allow_too_large=False)) as events,
    ):
        assert isinstance(await anext(events), Offered)
        assert (await anext(events)).progress.phase is DownloadPhase.RESOLVING
        download = await fetching(house)
        for done_bytes in (1, 2, 3):
            download.tell(done_bytes)
            await asyncio.sleep(0)
        assert (await anext(events)).progress.done_bytes == 3
        download.tell(4)
        download.finish()
        rest = [event async for event in events]
        assert [type(event) for event in rest] == [*[Progressed] * (len(rest) - 1), Pulled]
        assert {event.progress.done_bytes for event in rest[:-1]} <= {4}


async def test_the_first_that_leaves_does_not_stop_it():
    async with PullHouse(sources=TINY) as house:
        first, second = Caller(house.pulls, "tiny"), Caller(house.pulls, "tiny")
        download = await fetching(house)
        download.tell(1)
        await asyncio.gather(sees(first, 1), sees(second, 1))
        await first.leave()
        download.tell(2)
        await sees(second, 2)
        download.finish()
        await second.task
        assert not download.is_cancelled
    assert second.all(Pulled)


async def test_the_last_that_leaves_ends_it():
    async with PullHouse(sources=TINY) as house:
        first, second = Caller(house.pulls, "tiny"), Caller(house.pulls, "tiny")
        download = await fetching(house)
        await first.leave()
        await second.leave()
        await until(lambda: download.is_gone)
        assert download.is_cancelled
        assert house.downloader.running == []


async def test_a_new_one_waits_until_the_old_one_is_gone():
    async with PullHouse(sources=TINY) as house:
        first = Caller(house.pulls, "tiny")
        old = await fetching(house)
        old.may_end.clear()
        await first.leave()
        await until(lambda: old.closes_count)
        again, third = Caller(house.pulls, "tiny"), Caller(house.pulls, "tiny")
        for _ in range(20):
            await asyncio.sleep(0)
        assert house.downloader.asked == ["tiny"]
        assert not old.is_gone
        old.may_end.set()
        new = await fetching(house, 2)
        assert old.is_gone
        new.finish()
        await asyncio.gather(again.task, third.task)
        assert house.downloader.asked == ["tiny", "tiny"]


async def test_who_waits_for_the_end_of_another_can_leave():
    async with PullHouse(sources=TINY) as house:
        first = Caller(house.pulls, "tiny")
        old = await fetching(house)
        old.may_end.clear()
        await first.leave()
        waiting = Caller(house.pulls, "tiny")
        await until(lambda: old.closes_count)
        await waiting.leave()
        old.may_end.set()
        await until(lambda: old.is_gone)
        assert house.downloader.asked == ["tiny"]


async def test_leaving_while_the_source_is_asked_ends_that():
    async with PullHouse(sources=TINY) as house:
        house.downloader.may_find.clear()
        caller = Caller(house.pulls, "tiny")
        await until(lambda: house.downloader.finding)
        await caller.leave()
        await until(lambda: not house.downloader.running)
        assert house.downloader.cancelled_finds_count == 1


async def test_who_leaves_at_the_offer_has_nothing_fetched():
    async with PullHouse(sources=TINY) as house:
        async with aclosing(house.pulls.pull("tiny", "", allow_too_large=False)) as events:
            assert isinstance(await anext(events), Offered)
        (download,) = house.downloader.downloads
        await until(lambda: download.is_gone)
        assert (download.fetches_count, download.is_cancelled) == (0, False)


async def test_what_is_too_large_is_refused_to_one_and_goes_on_for_the_other():
    async with PullHouse(sources=HUGE) as house:
        house.downloader.may_find.clear()
        wary = Caller(house.pulls, "huge")
        bold = Caller(house.pulls, "huge", allow_too_large=True)
        await until(lambda: house.downloader.finding)
        house.downloader.may_find.set()
        with pytest.raises(ModelTooLarge):
            await wary.task
        download = await fetching(house)
        download.finish()
        await bold.task
        assert house.downloader.asked == ["huge"]
    assert wary.told == []
    assert bold.all(Pulled)


async def test_what_is_too_large_is_not_fetched():
    async with PullHouse(sources=HUGE) as house:
        with pytest.raises(ModelTooLarge):
            await Caller(house.pulls, "huge").task
        (download,) = house.downloader.downloads
        await until(lambda: download.is_gone)
        assert download.fetches_count == 0


@pytest.mark.parametrize(
    "error", [DownloadCorrupt("Not it."), StorageFull("Full."), SourceUnreachable("Away.")]
)
async def test_an_error_reaches_everybody(error):
    async with PullHouse(sources=TINY) as house:
        callers = [Caller(house.pulls, "tiny") for _ in range(3)]
        download = await fetching(house)
        download.fail(error)
        outcomes = await asyncio.gather(*(caller.task for caller in callers), return_exceptions=True)
        assert outcomes == [error] * 3
        assert download.is_gone
        again = Caller(house.pulls, "tiny")
        (await fetching(house, 2)).finish()
        await again.task
    assert not any(caller.all(Pulled) for caller in callers)


async def test_a_source_that_has_nothing_is_told_to_everybody_and_asked_again():
    async with PullHouse() as house:
        callers = [Caller(house.pulls, "tiny") for _ in range(2)]
        outcomes = await asyncio.gather(*(caller.task for caller in callers), return_exceptions=True)
        assert [type(each) for each in outcomes] == [ModelNotFound] * 2
        assert house.downloader.asked == ["tiny"]
        house.downloader.sources |= TINY
        again = Caller(house.pulls, "tiny")
        (await fetching(house)).finish()
        await again.task


async def test_an_error_that_nobody_hears_is_no_error_of_the_daemon(caplog):
    async with PullHouse(sources={"tiny": SourceUnreachable("Away.")}) as house:
        house.downloader.may_find.clear()
        caller = Caller(house.pulls, "tiny")
        await until(lambda: house.downloader.finding)
        house.downloader.may_find.set()
        await caller.leave()
    assert caplog.records == []


async def test_rate_and_time_left_follow_from_what_came():
    async with PullHouse(sources=TINY) as house:
        caller = Caller(house.pulls, "tiny")
        download = await fetching(house)
        for seconds, done_bytes in ((0, 0), (2, 500_000), (2, 1_000_000)):
            house.clock.seconds += seconds
            download.tell(done_bytes)
            await caller.until(lambda each: each.told[-1].progress.phase is DownloadPhase.DOWNLOADING)
            await sees(caller, done_bytes)
        assert (caller.told[-1].bytes_per_second, caller.told[-1].left_seconds) == (250_000, 4.0)
        download.tell(1_000_001, DownloadPhase.WAITING, "the connection broke")
        await sees(caller, 1_000_001)
        assert (caller.told[-1].bytes_per_second, caller.told[-1].left_seconds) == (0, None)
        assert caller.told[-1].progress.detail == "the connection broke"
        house.clock.seconds += 60
        download.tell(1_000_002)
        await sees(caller, 1_000_002)
        assert (caller.told[-1].bytes_per_second, caller.told[-1].left_seconds) == (0, None)
        download.finish()
        await caller.task


async def test_the_end_of_the_daemon_is_told_to_everybody_and_nothing_runs_on():
    async with PullHouse(Server(), sources=TINY | {"hf:a/b": offer("b")}) as house:
        server = Caller(house.pulls, "tiny")
        await until(lambda: house.engines[1].pulling)
        own = [Caller(house.pulls, "tiny", "llamacpp") for _ in range(2)]
        await fetching(house, 2)
        house.downloader.may_find.clear()
        finding = Caller(house.pulls, "hf:a/b")
        await until(lambda: house.downloader.finding)
        await house.pulls.close()
        assert house.downloader.running == []
        assert house.engines[1].pulling == []
        callers = (server, *own, finding)
        outcomes = await asyncio.gather(*(each.task for each in callers), return_exceptions=True)
        assert [type(each) for each in outcomes] == [ShuttingDown] * 4
        with pytest.raises(ShuttingDown):
            await Caller(house.pulls, "tiny").task
        assert house.downloader.asked == ["tiny", "tiny", "hf:a/b"]


async def test_the_end_of_the_daemon_waits_for_a_download_that_is_ending():
    async with PullHouse(sources=TINY) as house:
        caller = Caller(house.pulls, "tiny")
        download = await fetching(house)
        download.may_end.clear()
        await caller.leave()
        waiting = Caller(house.pulls, "tiny")
        await until(lambda: download.closes_count)
        closing = [asyncio.create_task(house.pulls.close()) for _ in range(2)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert not any(each.done() for each in closing)
        download.may_end.set()
        await asyncio.gather(*closing)
        assert download.is_gone
        with pytest.raises(ShuttingDown):
            await waiting.task
        assert house.downloader.asked == ["tiny"]


async def test_the_end_of_the_daemon_waits_for_what_was_only_offered():
    async with PullHouse(sources=TINY) as house:
        async with aclosing(house.pulls.pull("tiny", "", allow_too_large=False)) as events:
            assert isinstance(await anext(events), Offered)
            (download,) = house.downloader.downloads
            download.may_end.clear()
        await until(lambda: download.closes_count)
        closing = asyncio.create_task(house.pulls.close())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not closing.done()
        download.may_end.set()
        await closing
        assert download.is_gone


async def shaken(house, generator, name):
    """One step of a crowd: somebody comes, somebody leaves, or the download goes on."""
    await asyncio.sleep(0)
    if generator.random() < 0.3:
        (house.downloader.may_find.set if generator.random() < 0.7 else house.downloader.may_find.clear)()
    fetched = [each for each in house.downloader.downloads if each.is_fetching]
    for download in house.downloader.downloads:
        (download.may_end.set if generator.random() < 0.6 else download.may_end.clear)()
    if fetched and generator.random() < 0.2:
        fetched[0].tell(generator.randrange(2_000_000))
    if fetched and not fetched[0].has_outcome and generator.random() < 0.05:
        fetched[0].finish()
    return Caller(house.pulls, name) if generator.random() < 0.3 else None


@pytest.mark.parametrize("seed", range(20))
async def test_a_crowd_that_comes_and_goes_never_has_two_of_them(seed):
    generator = random.Random(seed)  # noqa: S311 - no secret
    async with PullHouse(sources=TINY) as house:
        callers = []
        for _ in range(300):
            came = await shaken(house, generator, "tiny")
            callers += [came] if came else []
            assert len(house.downloader.running) <= 1
            staying = [caller for caller in callers if not caller.task.done()]
            if staying and generator.random() < 0.3:
                generator.choice(staying).task.cancel()
        house.downloader.may_find.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while staying := [caller.task for caller in callers if not caller.task.done()]:
                for download in house.downloader.downloads:
                    download.may_end.set()
                    if download.is_fetching and not download.has_outcome:
                        download.finish()
                await asyncio.wait(staying, timeout=0)
                assert len(house.downloader.running) <= 1
        assert {type(caller.told[-1]) for caller in callers if not caller.task.cancelled()} == {Pulled}
        await until(lambda: not house.downloader.running)
        assert all(each.fetches_count <= 1 for each in house.downloader.downloads)
