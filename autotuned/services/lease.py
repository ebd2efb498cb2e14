"""A loaded model, and the right to use it.

``services.incarnations`` makes residences; each ``services.model_actor`` owns the leases of its model;
``services.generation`` and ``rpc.models`` hold them. Invariant: while a lease is held its incarnation is
neither unloaded nor reloaded, and the tokens that leases reserve of a shared cache fit into it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from autotuned.core.generation import Usage
from autotuned.core.plan import LoadShape, Need, Plan
from autotuned.core.ports import LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A plan that is to be carried out, and the need that it was made for."""

    need: Need
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Residence:
    """A loaded model with the choice that it was loaded by, in the shape that was really applied.

    ``loaded_at`` is seconds since the epoch.
    """

    loaded: LoadedModel
    need: Need
    plan: Plan
    loaded_at: float
    loaded_at_monotonic: float
    load_seconds: float


class Lease:
    """The right to use a loaded model. Use it as a context manager, or ``release`` it.

    ``waited_seconds`` is the wait for it, ``load_seconds`` the part of it in which the model was loaded
    or on its way; in the rest others used it. ``reserved_tokens`` are those of a cache that slots share.
    """

    def __init__(
        self,
        *,
        model_id: str,
        residence: Residence,
        plan: Plan,
        reserved_tokens: int,
        waited_seconds: float,
        load_seconds: float,
        leases: Leases,
    ) -> None:
        self.model_id = model_id
        self.loaded = residence.loaded
        self.plan = plan
        self.reserved_tokens = reserved_tokens
        self.used_tokens = 0  # of the context, by the engine's count
        self.waited_seconds = waited_seconds
        self.load_seconds = load_seconds
        self._leases = leases

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def claim(self, need: Need) -> bool:
        """Tells the exact need; False where requests beside this one leave too few tokens for it."""
        return self._leases.claim(self, need)

    def came_to(self, usage: Usage) -> None:
        """The engine ended a request: it holds so many tokens now."""
        self.used_tokens = usage.prompt_tokens + usage.reply_tokens

    def release(self) -> None:
        """Gives the model back. Safe to call twice."""
        self._leases.give_back(self)


class Leases:
    """The leases that are out.

    ``on_returned`` is called after each that was given back, or that gave tokens back.
    """

    def __init__(self, on_returned: Callable[[], None]) -> None:
        self._on_returned = on_returned
        self._held: set[Lease] = set()
        self._latest = ("", 0)  # the incarnation of the latest conversation, and its tokens

    def __len__(self) -> int:
        return len(self._held)

    def add(self, lease: Lease) -> None:
        """It is out."""
        self._held.add(lease)

    def give_back(self, lease: Lease) -> None:
        """It ends. Safe to call twice."""
        if lease not in self._held:
            return
        self._held.remove(lease)
        if lease.used_tokens:
            self._latest = lease.loaded.incarnation_id, lease.used_tokens
        self._on_returned()

    def claim(self, lease: Lease, need: Need) -> bool:
        """Reserves the tokens of this need for the lease; False where other leases leave too few."""
        if not self.leave_room(lease.loaded.shape, need, beside=self._held - {lease}):
            return False
        reserved_before = lease.reserved_tokens
        lease.reserved_tokens = needed_tokens(need)
        if lease.reserved_tokens < reserved_before:
            self._on_returned()
        return True

    def latest_tokens(self, loaded: LoadedModel) -> int:
        """What the latest conversation of this incarnation came to; 0 where there was none."""
        incarnation_id, tokens = self._latest
        return tokens if incarnation_id == loaded.incarnation_id else 0

    def leave_room(self, shape: LoadShape, need: Need, beside: set[Lease] | None = None) -> bool:
        """Whether a cache that slots share has the tokens; alone, a request has all of them."""
        others = self._held if beside is None else beside
        reserved = sum(other.reserved_tokens for other in others)
        return not shape.kv_unified or not reserved or reserved + needed_tokens(need) <= shape.context_tokens

    def clear(self) -> None:
        """The incarnation died: they are worth nothing any more."""
        self._held.clear()


def needed_tokens(need: Need) -> int:
    """Tokens that a request takes of a cache which slots share."""
    return need.prompt_tokens + need.reply_tokens
