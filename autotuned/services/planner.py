"""Plans for one model, each from the facts of its moment: memory, and what was learned so far.

``services.models`` makes one for each model, ``services.model_actor`` asks it. Invariant: it decides
nothing itself and waits for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from autotuned.core.errors import WouldSwap
from autotuned.core.memory import Resident
from autotuned.core.model import ModelFacts
from autotuned.core.plan import Fit, LoadShape, Need, Plan
from autotuned.core.ports import Engine, LoadedModel
from autotuned.policy.plan import plan_optimistically, refit, shrink
from autotuned.policy.remote import plan_remote
from autotuned.policy.situation import ShapeDefaults, Situation
from autotuned.policy.wording import listed, size
from autotuned.services.learning import Learning
from autotuned.services.residency import Residency


class Planner(Protocol):
    """What an actor asks."""

    def plan(self, need: Need, loaded: LoadShape | None) -> Plan:
        """What to do for this need. Raises ContextTooLong, FieldInvalid, WouldSwap."""

    def shrink(self, loaded: LoadShape, kept_tokens: int) -> Plan | None:
        """What to do about a loaded model that nobody uses, at the pressure of now; None: nothing."""

    def loaded(self, loaded: LoadedModel) -> None:
        """The engine loaded it: there is something to learn."""

    def fit(self, loaded: LoadShape | None) -> Fit | None:
        """How a first message of it would fit by the latest reading; None where it takes no memory here."""


class LocalPlanner(Planner):
    """The planner of one content of one model file."""

    def __init__(
        self,
        *,
        model_id: str,
        learned_as: str,
        facts: ModelFacts,
        defaults: ShapeDefaults,
        learning: Learning,
        residency: Residency,
    ) -> None:
        self._model_id = model_id
        self._learned_as = learned_as
        self._facts = facts
        self._defaults = defaults
        self._learning = learning
        self._residency = residency

    def plan(self, need: Need, loaded: LoadShape | None) -> Plan:
        """See ``Planner``."""
        situation = self._situation(loaded)
        try:
            return plan_optimistically(need, situation)
        except WouldSwap as error:
            busy = [resident for resident in situation.memory.residents if resident.is_busy]
            if not busy:
                raise
            raise error.with_hint(_in_use(busy)) from None

    def shrink(self, loaded: LoadShape, kept_tokens: int) -> Plan | None:
        """See ``Planner``."""
        return shrink(self._situation(loaded), kept_tokens)

    def loaded(self, loaded: LoadedModel) -> None:
        """See ``Planner``. An engine that measured nothing has nothing to teach."""
        if loaded.footprint.compute_bytes or loaded.footprint.process_bytes:
            self._learning.loaded(self._learned_as, loaded.shape, loaded.footprint)

    def fit(self, loaded: LoadShape | None) -> Fit:
        """How a first message of it would fit by the latest reading."""
        return refit(self._situation(loaded))

    def _situation(self, loaded: LoadShape | None) -> Situation:
        footprint = self._residency.footprint(self._model_id) if loaded else None
        return Situation(
            facts=self._facts,
            learned=self._learning.of(self._learned_as),
            defaults=self._defaults,
            memory=self._residency.view(self._model_id),
            loaded=loaded,
            loaded_freed_bytes=self._residency.freed_bytes(self._model_id) if loaded else 0,
            loaded_promised_bytes=self._residency.promised_bytes(self._model_id) if loaded else 0,
            loaded_footprint=footprint,
        )


class RemotePlanner(Planner):
    """The planner of a model that runs elsewhere: there is nothing to decide, and nothing to learn."""

    def __init__(self, *, facts: ModelFacts, engine: Engine) -> None:
        self._facts = facts
        self._engine = engine

    def plan(self, need: Need, loaded: LoadShape | None) -> Plan:
        """See ``Planner``."""
        return plan_remote(
            need,
            self._facts,
            loaded,
            slots_count=self._engine.capabilities().slots_count,
            where=self._engine.status().address,
        )

    def shrink(self, loaded: LoadShape, kept_tokens: int) -> Plan | None:
        """Never: it takes no memory here."""
        _ = loaded, kept_tokens
        return None

    def loaded(self, loaded: LoadedModel) -> None:
        """Nothing is learned of somebody else's memory."""

    def fit(self, loaded: LoadShape | None) -> Fit | None:
        """None: it takes no memory here."""
        _ = loaded
        return None


def _in_use(busy: Sequence[Resident]) -> str:
    """Who does not leave because it is used now."""
    names = listed([f'"{resident.model_id}"' for resident in busy])
    verb, keeps = ("is", "keeps") if len(busy) == 1 else ("are", "keep")
    return f"{names} {verb} in use and {keeps} {size(sum(resident.freed_bytes for resident in busy))}."
