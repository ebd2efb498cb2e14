"""What knows the hardware, chooses models and downloads them, put together.

``daemon`` imports and builds it with the first question: most daemons are seldom asked, all would carry it.
Invariant: one of each part for the life of the daemon, once there is one.
"""

from __future__ import annotations

from dataclasses import dataclass

from autotuned.core.ports import Clock, Downloader, HardwareProbe, RegistryFile
from autotuned.policy.situation import ShapeDefaults
from autotuned.services.hardware import HardwareReports
from autotuned.services.models import Models
from autotuned.services.pulls import Pulls
from autotuned.services.recommend import Recommender
from autotuned.services.residency import Residency


@dataclass(frozen=True, slots=True, kw_only=True)
class Choosing:
    """The services of a person who looks for a model."""

    reports: HardwareReports
    recommender: Recommender
    pulls: Pulls


def build_choosing(
    *,
    models: Models,
    residency: Residency,
    registry: RegistryFile,
    probe: HardwareProbe,
    downloader: Downloader,
    defaults: ShapeDefaults,
    clock: Clock,
) -> Choosing:
    """Builds them upwards."""
    reports = HardwareReports(
        probe=probe, residency=residency, models=models, registry=registry, defaults=defaults
    )
    recommender = Recommender(registry=registry, reports=reports, models=models, defaults=defaults)
    pulls = Pulls(
        downloader=downloader,
        models=models,
        reports=reports,
        recommender=recommender,
        defaults=defaults,
        clock=clock,
    )
    return Choosing(reports=reports, recommender=recommender, pulls=pulls)
