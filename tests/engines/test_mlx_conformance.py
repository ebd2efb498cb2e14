"""The MLX engine passes the suite that every engine passes, with the pocket model on the CPU."""

import shutil

import pytest

from tests.engines.mlx_engines import mlx_engine
from tests.engines.mlx_pool import PooledEngine
from tests.engines.shapes import shape
from tests.suites.engine_answers import EngineAnswers
from tests.suites.engine_case import EngineCase
from tests.suites.engine_continuation import EngineContinuation
from tests.suites.engine_footprint import EngineFootprint
from tests.suites.engine_life import EngineLife
from tests.suites.engine_prefixes import EnginePrefixes
from tests.suites.engine_structure import EngineStructure

pytest.importorskip("mlx_lm", reason="mlx-lm is not installed")

SHAPE = shape(gpu_layers_count=0, memory_mapped=False)
# 8 bits, and of each 32 elements a scale and a bias of 2 bytes: heads of 32 elements have no larger groups.
Q8_0_ELEMENT_BYTES = 1 + 2 * 2 / 32


async def active_requests(model):
    """Requests that the worker itself says it has."""
    return (await model.status()).active_requests_count


@pytest.fixture(scope="module")
async def started():
    """An engine and its folders, for all tests of this file."""
    async with mlx_engine() as (engine, paths):
        yield engine, PooledEngine(engine), paths


async def case_of(engine, paths):
    shutil.rmtree(paths.prefixes, ignore_errors=True)
    paths.prefixes.mkdir(mode=0o700)
    return EngineCase(
        engine=engine,
        entry=(await engine.models())[0],
        shape=SHAPE,
        active_requests=active_requests,
        prefix_folder=paths.prefixes,
        q8_0_element_bytes=Q8_0_ELEMENT_BYTES,
    )


class TestMlx(EngineAnswers, EngineStructure, EnginePrefixes, EngineContinuation):
    # Still more than a batch and than what is worth saving; a processor computes 300 tokens a second.
    long_text = "Repeat: " + "la lo lu " * 30

    @pytest.fixture
    async def case(self, started):
        return await case_of(started[1], started[2])


class TestMlxLife(EngineLife):
    """Here loads are real: models are ended. Those that tests only look at are lent even so."""

    @pytest.fixture
    async def case(self, started):
        return await case_of(started[0], started[2])

    @pytest.fixture
    async def model(self, started):
        case = await case_of(started[1], started[2])
        model = await case.load()
        yield model
        await model.unload()


class TestMlxFootprint(EngineFootprint):
    """Figures are those of the load; only what a process takes is looked at in a fresh one."""

    @pytest.fixture
    async def case(self, started, request):
        is_fresh = request.node.originalname == "test_the_parts_make_up_the_memory_of_the_process"
        return await case_of(started[not is_fresh], started[2])
