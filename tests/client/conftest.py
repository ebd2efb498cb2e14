from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.fake_daemon import FakeDaemon


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    with FakeDaemon() as running:
        yield running
