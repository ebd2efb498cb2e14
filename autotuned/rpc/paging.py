"""Pages of lists that are sorted by id. A page token is the last id of the page before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from autotuned.core.errors import FieldInvalid

DEFAULT_PAGE_SIZE = 100
LARGEST_PAGE_SIZE = 1_000

_Item = TypeVar("_Item")


def page(
    items: Sequence[_Item], id_of: Callable[[_Item], str], page_size: int, page_token: str
) -> tuple[Sequence[_Item], str]:
    """The items after the token, at most a page of them, and the token of the next page or ""."""
    if not 0 <= page_size <= LARGEST_PAGE_SIZE:
        raise FieldInvalid("page_size", f"{page_size} is out of range; use 0 to {LARGEST_PAGE_SIZE:,}.")
    size = page_size or DEFAULT_PAGE_SIZE
    rest = [item for item in items if id_of(item) > page_token]
    shown = rest[:size]
    return shown, id_of(shown[-1]) if len(rest) > size else ""
