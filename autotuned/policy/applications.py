"""Which applications to close, and what that would gain: memory, and models that would fit then.

``services.hardware`` asks. Invariant: a model that fits already is enabled by nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotuned.core.hardware import Application
from autotuned.core.plan import Fit, FitClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """An application that could be closed; ``enabled_models`` are installed ones that would fit then."""

    application: Application
    enabled_models: tuple[str, ...] = ()


def closings(
    applications: Sequence[Application],
    fits: Sequence[tuple[str, Fit]],
    *,
    margin_bytes: int,
    capacity_bytes: int,
) -> tuple[Closing, ...]:
    """Each application with what closing it alone would enable, largest first.

    ``capacity_bytes`` is what a model may ever take, whatever is closed.
    """
    possible = [(model, fit) for model, fit in fits if fit.required_bytes <= capacity_bytes]
    ordered = sorted(applications, key=lambda each: -each.memory_bytes)
    return tuple(
        Closing(
            application=application,
            enabled_models=tuple(
                model for model, fit in possible if _would_fit(fit, application.memory_bytes, margin_bytes)
            ),
        )
        for application in ordered
    )


def _would_fit(fit: Fit, freed_bytes: int, margin_bytes: int) -> bool:
    if fit.fit_class is FitClass.SAFE:
        return False
    return fit.required_bytes + margin_bytes <= fit.available_bytes + freed_bytes
