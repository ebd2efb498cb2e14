"""autotunectl hardware: the machine, its budgets, what fits, what closing programs would gain."""

from __future__ import annotations

import json

from autotune.v1 import hardware_pb2, system_service_pb2

from autotunectl.hardware_report import bandwidth_text, budget_text, gain_text, render
from autotunectl.output import Style
from autotunectl.session import Session
from tests.fakes.download_messages import GIB, machine, reason

REPORT = """\
System     Linux 6.18
Machine    Notebook 14
Processor  AMD EPYC, 8 cores (4 fast), 16 threads, x86_64
Computes   with AVX2, AVX512
Memory     24.0 GiB, 14.0 GiB can be had, read at 41 GB/s (measured)
Limit      20.0 GiB, of the control group that the daemon runs in
Swap       0 B of 2.0 GiB used
GPU        RTX 4090, 24.0 GiB, 22.0 GiB free, read at 1,008 GB/s (specified),
           driver 550.1
Power      battery, 80 % charged
Heat       fair
Budget     RTX 4090: a model may take 23.0 GiB, 21.0 GiB of it now; no engine
           uses it
Budget     RAM: a model may take 16.0 GiB, 12.0 GiB of it now
           Other programs usually take 4.0 GiB.

MODEL     ENGINE    FIT        SAFE CONTEXT  ESTIMATED SPEED
pocket    llamacpp  safe              8,192   2,765 tokens/s
qwen3:8b  ollama    swap risk             -     6.4 tokens/s

Closing applications would free memory, by estimate:
  firefox (12 processes)  frees 2.1 GiB; qwen3:8b would fit then
  code                    frees 900.0 MiB
"""


def test_the_machine_its_budgets_what_fits_and_what_closing_would_gain(ctl, daemon):
    result = ctl("hardware")
    assert (result.status, result.out, result.err) == (0, REPORT, "")


def test_no_line_is_wider_than_a_terminal(ctl, daemon):
    sentence = "Other programs usually take 4.0 GiB of it, and a margin of 1.2 GiB is left free for them."
    daemon.hardware.budgets[1].reasons[0].text = sentence
    text = ctl("hardware").out
    assert max(map(len, text.splitlines())) <= 80
    assert sentence in " ".join(text.split())


def test_a_pipe_gets_no_colours(ctl, daemon, monkeypatch):
    assert "\x1b" not in ctl("hardware").out
    monkeypatch.setattr(Session, "out_style", Style(colours=True))
    assert "\x1b[1mMODEL " in ctl("hardware").out


def test_closing_an_application_names_three_models_at_most():
    def gain(*models: str) -> str:
        return gain_text(hardware_pb2.Application(memory_bytes=GIB, enabled_models=models))

    assert gain() == "frees 1.0 GiB"
    assert gain("a") == "frees 1.0 GiB; a would fit then"
    assert gain("a", "b") == "frees 1.0 GiB; a and b would fit then"
    assert gain("a", "b", "c") == "frees 1.0 GiB; a, b and c would fit then"
    assert gain("a", "b", "c", "d", "e") == "frees 1.0 GiB; a, b, c and 2 more would fit then"


def test_hardware_as_json(ctl, daemon):
    printed = json.loads(ctl("hardware", "--json").out)
    assert printed["hardware"]["thermal_state"] == "fair"
    assert printed["hardware"]["memory_bandwidth"] == {
        "bytes_per_second": 41_300_000_000,
        "source": "measured",
    }
    assert [budget["is_used"] for budget in printed["budgets"]] == [False, True]
    assert printed["applications"][0]["enabled_models"] == ["qwen3:8b"]


def test_what_the_system_does_not_tell_is_no_figure():
    assert render(system_service_pb2.GetHardwareResponse()) == (
        "System     unknown\nProcessor  unknown\nMemory     -\nSwap       none\nGPU        none\n\n"
        'No model is installed; "autotunectl recommend" says which to get.\n'
    )


def test_power_is_told_as_far_as_it_is_known():
    def power(**fields) -> str:
        text = render(
            system_service_pb2.GetHardwareResponse(hardware=hardware_pb2.Hardware(system="x", **fields))
        )
        return next((line.split(None, 1)[1] for line in text.splitlines() if line.startswith("Power")), "")

    assert power() == ""
    assert power(power_source=hardware_pb2.POWER_SOURCE_MAINS) == "mains"
    assert power(power_source=hardware_pb2.POWER_SOURCE_MAINS, battery_percent=99) == (
        "mains, battery 99 % charged"
    )
    assert power(battery_percent=5) == "unknown, battery 5 % charged"


def test_a_gpu_that_shares_the_memory_says_so():
    gpu = hardware_pb2.Gpu(name="Apple M4", vendor="apple", unified=True)
    hardware = hardware_pb2.Hardware(system="macOS 26.1", gpus=[gpu])
    assert "GPU        Apple M4, shares the memory\n" in render(
        system_service_pb2.GetHardwareResponse(hardware=hardware)
    )


def test_a_bandwidth_says_where_it_comes_from():
    assert bandwidth_text(hardware_pb2.Bandwidth()) == ""
    assert bandwidth_text(hardware_pb2.Bandwidth(bytes_per_second=9_400_000_000)) == "9.4 GB/s"
    specified = hardware_pb2.Bandwidth(bytes_per_second=120_000_000_000, source=2)
    assert bandwidth_text(specified) == "120 GB/s (specified)"


def test_a_budget_without_a_name_is_called_by_its_place():
    budget = hardware_pb2.MemoryBudget(place=hardware_pb2.MEMORY_PLACE_UNIFIED, is_used=True)
    assert budget_text(budget) == "unified: a model may take 0 B, 0 B of it now"


def test_that_nothing_uses_a_budget_is_said_once():
    budget = hardware_pb2.MemoryBudget(name="RTX 4090")
    assert budget_text(budget).endswith("0 B of it now; no engine uses it")
    budget.reasons.append(reason("gpu-unused", "No engine that is ready computes on the GPU."))
    assert budget_text(budget).endswith("0 B of it now")


def test_hostile_names_cannot_steer_the_terminal():
    response = machine()
    response.applications[0].name = "fire\x1b[2J\nfox"
    response.hardware.model = "evil\x1b[2J"
    response.models[0].model = "a\x07b"
    text = render(response)
    assert not {"\x1b", "\x07"} & set(text)
    assert "fire[2J fox (12 processes)" in text
