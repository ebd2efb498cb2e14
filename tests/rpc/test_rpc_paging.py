"""Pages: every item once, in order, whatever the page size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.errors import FieldInvalid
from autotuned.rpc.paging import page


@given(st.lists(st.text(min_size=1, max_size=3), unique=True, max_size=30).map(sorted), st.integers(1, 40))
def test_walking_the_pages_gives_every_item_once(ids, size):
    seen, token = [], ""
    while True:
        shown, token = page(ids, str, size, token)
        seen += shown
        assert len(shown) <= size
        if not token:
            break
    assert seen == ids


def test_an_empty_list_has_one_empty_page():
    assert page([], str, 0, "") == ([], "")


@pytest.mark.parametrize("size", [-1, 1001])
def test_a_page_size_out_of_range_is_refused(size):
    with pytest.raises(FieldInvalid, match=f"page_size: {size} is out of range; use 0 to 1,000"):
        page(["a"], str, size, "")
