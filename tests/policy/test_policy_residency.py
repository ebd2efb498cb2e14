import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.memory import Resident
from autotuned.policy.residency import evictable_bytes, evictions, expired
from tests.strategies import residents

GIB = 1 << 30


def resident(model_id, freed_bytes, last_used_at, *, is_busy=False):
    return Resident(model_id=model_id, freed_bytes=freed_bytes, is_busy=is_busy, last_used_at=last_used_at)


OLD, MIDDLE, NEW = resident("old", GIB, 1), resident("middle", 10 * GIB, 2), resident("new", 4 * GIB, 3)
BUSY = resident("busy", 100 * GIB, 0, is_busy=True)
ALL = (NEW, OLD, BUSY, MIDDLE)


@pytest.mark.parametrize(
    ("missing_bytes", "leaving"),
    [
        (-GIB, ()),
        (0, ()),
        (1, ("old",)),
        (GIB, ("old",)),
        (GIB + 1, ("middle",)),
        (11 * GIB, ("old", "middle")),
        (12 * GIB, ("middle", "new")),
        (15 * GIB, ("old", "middle", "new")),
        (1000 * GIB, ("old", "middle", "new")),
    ],
)
def test_the_least_recently_used_leave_and_nobody_in_vain(missing_bytes, leaving):
    assert evictions(ALL, missing_bytes) == leaving


@given(residents(), st.integers(-GIB, 200 * GIB))
def test_nobody_who_is_busy_leaves_and_nobody_could_stay(models, missing_bytes):
    chosen = [model for model in models if model.model_id in evictions(models, missing_bytes)]
    freed_bytes = sum(model.freed_bytes for model in chosen)
    assert not any(model.is_busy for model in chosen)
    if evictable_bytes(models) >= missing_bytes:
        assert freed_bytes >= missing_bytes
        assert all(freed_bytes - model.freed_bytes < missing_bytes for model in chosen)
    else:
        assert freed_bytes == evictable_bytes(models)


@given(residents(), st.integers(0, 200 * GIB))
def test_they_leave_in_the_order_of_their_last_use(models, missing_bytes):
    last_use = {model.model_id: model.last_used_at for model in models}
    order = [last_use[model_id] for model_id in evictions(models, missing_bytes)]
    assert order == sorted(order)


def test_what_idle_models_would_free():
    assert evictable_bytes(ALL) == 15 * GIB


@pytest.mark.parametrize(
    ("keep_alive_seconds", "now", "leaves"),
    [(60, 159, False), (60, 160, True), (0, 100, True), (-1, 1e12, False)],
)
def test_an_idle_model_outstays_its_time(keep_alive_seconds, now, leaves):
    assert expired(100, keep_alive_seconds, now) is leaves
