"""What is wrong, worst first, and what to do about it."""

from __future__ import annotations

import pytest

from autotuned.core.engine import EngineState, EngineStatus, Finding, Severity
from autotuned.core.memory import PressureTier
from autotuned.core.model import ModelEntry
from autotuned.policy.catalogue import joined
from autotuned.policy.findings import LITTLE_DISK_BYTES, Circumstances, findings
from tests.examples import POCKET

READY = EngineStatus(name="llamacpp", state=EngineState.READY)
HUNG = EngineStatus(name="x", state=EngineState.UNREACHABLE, detail="its server ended")
MODEL = ModelEntry(id="pocket", engine="llamacpp", path="/p.gguf", size_bytes=1, facts=POCKET)
BROKEN = ModelEntry(
    id="b", engine="llamacpp", path="/b.gguf", size_bytes=1, facts=None, problem="it is cut short."
)


def found(**changes):
    well = {
        "statuses": (READY,),
        "models": joined([MODEL]),
        "default_model": "pocket",
        "pressure": PressureTier.NORMAL,
        "disk_free_bytes": LITTLE_DISK_BYTES,
    }
    return findings(Circumstances(**well | changes))


def test_where_all_is_well_nothing_is_said():
    assert found() == ()


@pytest.mark.parametrize(
    ("code", "severity", "changes"),
    [
        ("no-engine", Severity.PROBLEM, {"statuses": (EngineStatus(name="x", state=EngineState.OFF),)}),
        ("default-model-missing", Severity.PROBLEM, {"default_model": "gone"}),
        ("model-unusable", Severity.WARNING, {"models": joined([MODEL, BROKEN])}),
        ("memory-pressure", Severity.WARNING, {"pressure": PressureTier.HIGH}),
        ("preferred-engine-missing", Severity.WARNING, {"prefer": "olama"}),
        ("engine-unreachable", Severity.WARNING, {"statuses": (READY, HUNG)}),
        ("own-registry", Severity.WARNING, {"registry_problems": ("It is no TOML.",)}),
        ("disk-almost-full", Severity.WARNING, {"disk_free_bytes": LITTLE_DISK_BYTES - 1}),
    ],
)
def test_each_thing_that_is_wrong_has_its_finding(code, severity, changes):
    (finding,) = found(**changes)
    assert (finding.code, finding.severity) == (code, severity)
    assert finding.text.endswith(".")
    assert finding.advice


def test_the_worst_comes_first_and_engines_speak_for_themselves():
    info = Finding(code="a", severity=Severity.INFO, subject="llamacpp", text="A.")
    status = EngineStatus(name="llamacpp", state=EngineState.READY, findings=(info,))
    codes = [each.code for each in found(statuses=(status,), default_model="x", pressure=PressureTier.HIGH)]
    assert codes == ["default-model-missing", "memory-pressure", "a"]


def test_a_default_of_a_named_engine_is_not_called_missing():
    assert found(default_model="gpu/big") == ()


def test_a_preference_for_an_engine_that_is_there_is_no_finding():
    assert found(prefer="llamacpp") == ()
