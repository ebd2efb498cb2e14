"""The benchmarks run, at a size that measures nothing: no figure is asserted here."""

from __future__ import annotations

import json

import pytest

from tests.bench import (
    accidents,
    adapters,
    alternation,
    footprint,
    latency,
    mlx,
    report,
    squeeze,
    streaming,
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(latency, "ROUNDS", 3)
    monkeypatch.setattr(latency, "WARM_UP_ROUNDS", 1)
    monkeypatch.setattr(streaming, "TOKENS", 500)
    monkeypatch.setattr(streaming, "ROUNDS", 1)
    monkeypatch.setattr(footprint, "STARTS", 1)
    monkeypatch.setattr(footprint, "COMMANDS", 1)
    monkeypatch.setattr(footprint, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(footprint, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(squeeze, "PARAMETERS_COUNT", 40_000_000)
    monkeypatch.setattr(squeeze, "LIMITS_MIB", (256,))
    monkeypatch.setattr(squeeze, "SQUEEZED_LIMIT_MIB", 448)
    monkeypatch.setattr(squeeze, "STEP_MIB", 64)
    monkeypatch.setattr(squeeze, "FULL_TURNS", 1)
    monkeypatch.setattr(adapters, "ENGINES", ("llamacpp", "ollama", "lmstudio", "lab"))
    monkeypatch.setattr(adapters, "PAIRS", 2)
    monkeypatch.setattr(adapters, "WARM_UP_PAIRS", 1)
    monkeypatch.setattr(alternation, "ROUNDS", 1)
    monkeypatch.setattr(accidents, "ENGINES", ("llamacpp", "ollama"))
    monkeypatch.setattr(accidents, "COUNT", 3)
    monkeypatch.setattr(accidents, "COPIES_COUNT", 1)
    monkeypatch.setattr(mlx, "ROUNDS", 1)
    monkeypatch.setattr(mlx, "RESTARTS", 1)
    monkeypatch.setattr(mlx, "SYSTEM_LINES", 4)
    monkeypatch.setattr(mlx, "DECODE_TOKENS", 4)
    monkeypatch.setattr(mlx, "QUESTIONS", mlx.QUESTIONS[:2])
    for name in ("STEP_SECONDS", "RECOVERY_SECONDS", "PAUSE_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(squeeze, name, 0.1)


@pytest.mark.parametrize(
    "section",
    [latency, streaming, footprint, squeeze, adapters, alternation, mlx, accidents],
    ids=lambda module: module.__name__,
)
def test_a_section_measures_prints_and_saves(section, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(report, "OUTPUT", tmp_path)
    rows = section.measure()
    report.show("Section", rows)
    printed = capsys.readouterr().out
    assert all(row.name in printed for row in rows)
    saved = json.loads(report.save({"Section": rows}).read_text())
    assert [row["name"] for row in saved["sections"]["Section"]] == [row.name for row in rows]


def test_a_target_is_met_or_missed():
    assert report.Row("x", 1.0, "ms", 2).verdict == "met"
    assert report.Row("x", 2.0, "ms", 2).verdict == "MISSED"
    assert report.Row("x", 2.0, "tokens/s", 2, at_least=True).verdict == "met"
    assert report.Row("x", 2.0, "ms").verdict == ""
