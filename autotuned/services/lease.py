"""A loaded model, and the right to use it.

``services.model_actor`` makes both; ``services.generation`` and ``rpc.models`` hold leases.
Invariant: while a lease is held its incarnation is neither unloaded nor reloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from autotuned.core.plan import Need, Plan
from autotuned.core.ports import LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Residence:
    """A loaded model with the plan that it was loaded by, in the shape that was really applied.

    ``need`` is what that plan was made for; ``loaded_at`` is seconds since the epoch.
    """

    loaded: LoadedModel
    need: Need
    plan: Plan
    loaded_at: float
    loaded_at_monotonic: float
    load_seconds: float


class Lease:
    """The right to use a loaded model. Use it as a context manager, or ``release`` it."""

    def __init__(
        self,
        *,
        model_id: str,
        residence: Residence,
        plan: Plan,
        waited_seconds: float,
        give_back: Callable[[Lease], None],
    ) -> None:
        self.model_id = model_id
        self.loaded = residence.loaded
        self.plan = plan
        self.waited_seconds = waited_seconds
        self._give_back = give_back

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Gives the model back. Safe to call twice."""
        self._give_back(self)
