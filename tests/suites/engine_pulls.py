"""What every engine must do whose server downloads models, and what the others answer instead.

A test file of an engine that declares ``pulls`` subclasses ``EnginePulls`` and gives it a fixture ``pulls``, a
``PullCase``. ``EngineWithoutPulls`` is a part of ``EngineSuite``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from autotuned.core.download import Downloaded, DownloadPhase, DownloadProgress
from autotuned.core.errors import (
    DownloadCorrupt,
    ModelNotFound,
    ShuttingDown,
    SourceDenied,
    SourceUnreachable,
    StorageFull,
    Unsupported,
)
from autotuned.core.model import ModelEntry
from autotuned.core.plan import LoadShape
from autotuned.core.ports import Engine
from tests.engines.processes import until
from tests.fakes.ollama.registry import Refusal, Registry
from tests.fakes.serving import free_port
from tests.suites.engine_case import EngineCase, answer, ask, text_of

ENDLESS_DISK = Path("/dev/full")


@dataclass(frozen=True, slots=True, kw_only=True)
class PullCase:
    """An engine that pulls, and a registry with two names of one model of which nothing is here yet.

    ``file_bytes`` and ``file_digest`` are of its weights. ``folder`` is where the server has its models, None
    where nobody knows.
    """

    engine: Engine
    registry: Registry
    name: str
    twin_name: str
    file_bytes: int
    file_digest: str
    shape: LoadShape
    folder: Path | None

    async def pull(self, name: str = "") -> tuple[Downloaded, list[DownloadProgress]]:
        """What came of a pull, and what was told meanwhile."""
        told: list[DownloadProgress] = []
        return await self.engine.pull(name or self.name, told.append), told

    async def entry(self, name: str = "") -> ModelEntry | None:
        """The model in the engine's list."""
        wanted = f"{name or self.name}:latest"
        return next((each for each in await self.engine.models() if each.id == wanted), None)

    async def text(self, name: str = "") -> str:
        """What the model says."""
        entry = await self.entry(name)
        assert entry is not None
        model = await self.engine.load(entry, self.shape, lambda _: None)
        try:
            return text_of(await answer(model, ask("What is the capital of France?")))
        finally:
            await model.unload()

    @property
    def stored_bytes(self) -> int:
        """What the server has on the disk."""
        assert self.folder is not None
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


class EnginePulls:
    """The suite of engines that pull. A subclass provides the fixture ``pulls``."""

    async def test_a_pulled_model_is_listed_at_once_and_chats(self, pulls):
        assert await pulls.entry() is None
        pulled, _ = await pulls.pull()
        entry = await pulls.entry()
        assert (pulled.model_id, pulled.engine) == (entry.id, pulls.engine.name)
        assert pulls.file_bytes <= pulled.fetched_bytes <= pulled.size_bytes == entry.size_bytes
        assert entry.problem == ""
        assert "Paris" in await pulls.text()

    async def test_it_tells_how_far_it_is(self, pulls):
        told = []
        pulls.registry.hold_after = pulls.file_bytes // 2

        def note(progress):
            told.append(progress)
            if progress.done_bytes:
                pulls.registry.release()

        await pulls.engine.pull(pulls.name, note)
        phases = list(dict.fromkeys(each.phase for each in told))
        assert phases[0] is DownloadPhase.RESOLVING
        assert phases[-2:] == [DownloadPhase.VERIFYING, DownloadPhase.FINISHING]
        assert DownloadPhase.DOWNLOADING in phases
        assert all(0 <= each.done_bytes <= each.total_bytes for each in told)
        assert max(each.total_bytes for each in told) >= pulls.file_bytes
        totals = [each.total_bytes for each in told]
        assert totals == sorted(totals)

    async def test_what_is_here_is_not_fetched_again(self, pulls):
        await pulls.pull()
        sent_bytes = pulls.registry.sent_bytes
        again, _ = await pulls.pull()
        assert again.fetched_bytes == 0
        assert again.size_bytes >= pulls.file_bytes
        assert pulls.registry.sent_bytes == sent_bytes

    async def test_a_cancelled_pull_ends_and_the_next_goes_on_from_there(self, pulls):
        pulls.registry.hold_after = half = pulls.file_bytes // 2
        seen = asyncio.Event()

        def note(progress):
            if progress.done_bytes >= half:
                seen.set()

        pulling = asyncio.create_task(pulls.engine.pull(pulls.name, note))
        await asyncio.wait([pulling, asyncio.create_task(seen.wait())], return_when=asyncio.FIRST_COMPLETED)
        pulling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pulling
        assert await pulls.entry() is None
        if pulls.folder is not None:
            note_file = _blob(pulls).with_name(f"{_blob(pulls).name}-partial-0")
            await until(lambda: f'"Completed":{half}' in note_file.read_text(), "what came is kept")
        pulls.registry.release()
        await pulls.pull()
        assert "Paris" in await pulls.text()
        assert pulls.registry.sent_bytes <= 1.1 * (await pulls.entry()).size_bytes

    async def test_connections_that_break_cost_nothing(self, pulls):
        pulls.registry.cuts = [pulls.file_bytes // 3, pulls.file_bytes // 3]
        pulled, _ = await pulls.pull()
        assert pulls.registry.sent_bytes <= 1.1 * pulled.size_bytes
        assert "Paris" in await pulls.text()

    async def test_an_unknown_name_is_not_found(self, pulls):
        with pytest.raises(ModelNotFound, match=r'has no "[^"]+/lab/nothing" .*check the name'):
            await pulls.pull(f"{pulls.registry.host}/lab/nothing")
        with pytest.raises(ModelNotFound, match="check the name"):
            await pulls.pull("no/../name:%")

    async def test_a_registry_that_is_not_there_is_unreachable(self, pulls):
        with pytest.raises(SourceUnreachable, match="check the connection and pull it again"):
            await pulls.pull(f"127.0.0.1:{free_port()}/lab/pocket")

    @pytest.mark.parametrize(("status", "body"), [(500, b"oops"), (429, b"slow down"), (200, b"<html>")])
    async def test_a_registry_that_answers_nonsense_is_unreachable(self, pulls, status, body):
        pulls.registry.refusals = [Refusal("manifests", status, body)]
        with pytest.raises(SourceUnreachable):
            await pulls.pull()
        pulls.registry.refusals = []
        await pulls.pull()

    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_registry_that_wants_to_know_who_asks_denies(self, pulls, status):
        pulls.registry.refusals = [Refusal("manifests", status, b"no")]
        with pytest.raises(SourceDenied, match="ollama signin"):
            await pulls.pull()

    async def test_a_damaged_file_is_told_and_leaves_no_model(self, pulls):
        pulls.registry.wrong = {pulls.file_digest}
        with pytest.raises(DownloadCorrupt, match="pull it again"):
            await pulls.pull()
        assert await pulls.entry() is None
        pulls.registry.wrong = set()
        await pulls.pull()
        assert "Paris" in await pulls.text()

    async def test_a_full_disk_is_told(self, pulls):
        with _full_disk(pulls), pytest.raises(StorageFull, match=r"no room for .*free some"):
            await pulls.pull()
        assert await pulls.entry() is None

    async def test_closing_the_engine_ends_its_pulls(self, pulls):
        pulls.registry.hold_after = pulls.file_bytes // 2
        pulling = asyncio.create_task(pulls.engine.pull(pulls.name, lambda _: None))
        await until(lambda: pulls.registry.is_holding() or pulling.done(), "the file comes")
        await pulls.engine.close()
        with pytest.raises(ShuttingDown):
            await pulling
        with pytest.raises(ShuttingDown):
            await pulls.pull()

    async def test_a_deleted_model_is_gone_with_its_bytes(self, pulls):
        before = pulls.stored_bytes if pulls.folder else 0
        await pulls.pull()
        entry = await pulls.entry()
        assert await pulls.engine.delete(entry) == entry.size_bytes
        assert await pulls.entry() is None
        assert pulls.folder is None or pulls.stored_bytes == before
        assert await pulls.engine.delete(entry) == 0

    async def test_what_another_name_shares_stays(self, pulls):
        await pulls.pull()
        second, _ = await pulls.pull(pulls.twin_name)
        assert second.fetched_bytes == 0
        assert await pulls.engine.delete(await pulls.entry()) == 0
        assert await pulls.entry() is None
        assert "Paris" in await pulls.text(pulls.twin_name)
        assert await pulls.engine.delete(await pulls.entry(pulls.twin_name)) >= pulls.file_bytes


class EngineWithoutPulls:
    """One part of ``EngineSuite``: the rest of it deletes nothing."""

    async def test_what_it_does_not_pull_it_refuses_with_what_to_do(self, case):
        if case.engine.capabilities().pulls:
            pytest.skip("this engine pulls")
        with pytest.raises(Unsupported, match="qwen3:8b") as caught:
            await case.engine.pull("qwen3:8b", lambda _: None)
        assert "; " in caught.value.message

    async def test_what_is_not_its_own_it_does_not_delete(self, case: EngineCase) -> None:
        if case.engine.capabilities().pulls:
            pytest.skip("what this engine lists is its own")
        with pytest.raises(Unsupported, match=r";.*(delete|stays)"):
            await case.engine.delete(case.entry)
        assert case.entry in await case.engine.models()


def _blob(pulls: PullCase) -> Path:
    assert pulls.folder is not None
    return pulls.folder / "blobs" / pulls.file_digest.replace(":", "-")


@contextlib.contextmanager
def _full_disk(pulls: PullCase) -> Iterator[None]:
    """Where the server writes the file, nothing can be written."""
    if pulls.folder is None or not ENDLESS_DISK.exists():
        pytest.skip("no disk can be made full here")
    partial = _blob(pulls).with_name(f"{_blob(pulls).name}-partial")
    partial.parent.mkdir(exist_ok=True)
    partial.symlink_to(ENDLESS_DISK)
    try:
        yield
    finally:
        partial.unlink()
        partial.with_name(f"{partial.name}-0").unlink(missing_ok=True)
