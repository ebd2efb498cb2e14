"""The LM Studio adapter passes the suite that every engine passes, on the double of LM Studio.

The double runs the real pocket model, but it is no LM Studio: what passes here holds for what the
documentation says, not for a build that does otherwise.
"""

from dataclasses import replace

import pytest

from autotuned.core.model import LoadPhase
from tests.engines.lmstudio_case import (
    case_of,
    instances_of,
    load_in_the_app,
    opened,
    shared_lmstudio,
    unload_all,
    with_own_client,
)
from tests.suites.engine_suite import EngineSuite

SEEN = (LoadPhase.STARTING, LoadPhase.READY)


@pytest.fixture(scope="module")
def double():
    with shared_lmstudio(slots_count=1) as running:
        yield running


class TestLmstudioDouble(EngineSuite):
    """Tests of one model share an instance that was loaded in the app; others begin with none."""

    @pytest.fixture
    async def own(self, double, request):
        async with with_own_client(double) as own:
            if "model" not in request.fixturenames:
                await unload_all(own)
            elif not await instances_of(own):
                await load_in_the_app(own)
            yield own

    @pytest.fixture
    async def case(self, own):
        async with opened(own) as engine:
            case = await case_of(own, engine)
            yield replace(case, tells_times=False, tells_memory=False, load_phases=SEEN)

    @pytest.fixture
    async def model(self, case):
        return await case.load()
