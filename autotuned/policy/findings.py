"""What a person should know about daemon, engines, models and machine, and what to do about it.

``services.engines`` collects the circumstances. Invariant: the worst comes first, and everything that can
be mended says how.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autotuned.core.engine import EngineState, EngineStatus, Finding, Severity
from autotuned.core.memory import PressureTier
from autotuned.policy.catalogue import CatalogueModel, named
from autotuned.policy.routing import AUTO
from autotuned.policy.wording import size

LITTLE_DISK_BYTES = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What is looked at. ``disk_free_bytes`` is that of the data folder, ``prefer`` an engine or "auto".

    ``registry_problems`` are mistakes in the user's own file of downloadable models, a sentence each.
    """

    statuses: tuple[EngineStatus, ...]
    models: tuple[CatalogueModel, ...]
    default_model: str
    pressure: PressureTier
    disk_free_bytes: int
    prefer: str = AUTO
    registry_problems: tuple[str, ...] = ()


def findings(found: Circumstances) -> tuple[Finding, ...]:
    """All there is to say, worst first."""
    every = (*_engines(found), *_models(found), *_machine(found))
    return tuple(sorted(every, key=lambda each: -each.severity))


def _engines(found: Circumstances) -> Iterator[Finding]:
    for status in found.statuses:
        yield from status.findings
        if status.state is EngineState.UNREACHABLE and not status.findings:
            yield Finding(
                code="engine-unreachable",
                severity=Severity.WARNING,
                subject=status.name,
                text=f"It cannot be used: {status.detail or 'it does not answer'}.",
                advice=f"Mend that, or switch {status.name} off in the configuration.",
            )
    names = [status.name for status in found.statuses]
    if found.prefer not in {AUTO, *names}:
        yield Finding(
            code="preferred-engine-missing",
            severity=Severity.WARNING,
            subject="engines",
            text=f'engines.prefer is "{found.prefer}", and there is no such engine.',
            advice=f"Set it to one of: {', '.join((AUTO, *names))}.",
        )
    if all(status.state is not EngineState.READY for status in found.statuses):
        yield Finding(
            code="no-engine",
            severity=Severity.PROBLEM,
            subject="engines",
            text="No engine is ready, so nothing can be answered.",
            advice="See what is said of each engine.",
        )


def _models(found: Circumstances) -> Iterator[Finding]:
    if named(found.models, found.default_model) is None and "/" not in found.default_model:
        yield Finding(
            code="default-model-missing",
            severity=Severity.PROBLEM,
            subject="models",
            text=f'The default model "{found.default_model}" is not there.',
            advice='Set models.default to a model that "autotunectl ls" shows.',
        )
    for model in found.models:
        for entry in model.entries:
            if entry.problem:
                yield Finding(
                    code="model-unusable",
                    severity=Severity.WARNING,
                    subject=entry.engine,
                    text=f'"{entry.id}" cannot be used: {entry.problem}',
                    advice=f"Mend or remove {entry.path}.",
                )
    for problem in found.registry_problems:
        yield Finding(
            code="own-registry",
            severity=Severity.WARNING,
            subject="models",
            text=problem,
            advice='Correct the file; "autotunectl models --registry" lists what was read of it.',
        )


def _machine(found: Circumstances) -> Iterator[Finding]:
    if found.pressure >= PressureTier.HIGH:
        yield Finding(
            code="memory-pressure",
            severity=Severity.WARNING,
            subject="memory",
            text=f"Memory pressure is {found.pressure.name.lower()}: idle models leave, contexts shrink.",
            advice="Close programs that take much memory, or unload models.",
        )
    if found.disk_free_bytes < LITTLE_DISK_BYTES:
        yield Finding(
            code="disk-almost-full",
            severity=Severity.WARNING,
            subject="disk",
            text=f"The disk of the data folder has {size(found.disk_free_bytes)} left.",
            advice="Make room on it: no KV prefixes are saved until then.",
        )
