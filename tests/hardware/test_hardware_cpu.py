"""Processors of Linux machines: what their files say, what they leave out, and nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.hardware import Cpu
from autotuned.hardware.arm_cores import core_name
from autotuned.hardware.cpu import architecture_name, fast_cpus, parse_cpu_list, read_cpu
from autotuned.hardware.cpuinfo import parse_cpuinfo
from tests import recorded_pcs as pcs

# A Raspberry Pi 5, shortened: what follows the cores is no core.
RASPBERRY_PI_5 = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

processor\t: 1
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

Revision\t: c04170
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""


def arm_core(number: int, part: str, features: str = "fp asimd asimdhp asimddp sve i8mm bf16 sve2") -> str:
    return f"processor\t: {number}\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n"


def topology(siblings: list[str], capacities: list[int] | None = None) -> dict[str, str]:
    """Files of cores: which threads share each, and how strong they are."""
    folder = "sys/devices/system/cpu"
    files = {f"{folder}/online": f"0-{len(siblings) - 1}\n"}
    for number, text in enumerate(siblings):
        files[f"{folder}/cpu{number}/topology/thread_siblings_list"] = f"{text}\n"
    for number, capacity in enumerate(capacities or []):
        files[f"{folder}/cpu{number}/cpu_capacity"] = f"{capacity}\n"
    return files


def test_a_processor_with_two_threads_on_each_core(make_machine):
    root = make_machine(pcs.amd("AMD Ryzen 7 7735HS with Radeon Graphics", pcs.ZEN_FLAGS, pcs.neighbours(8)))
    assert read_cpu(root, "x86_64") == Cpu(
        model="AMD Ryzen 7 7735HS with Radeon Graphics",
        architecture="x86_64",
        physical_cores_count=8,
        logical_cores_count=16,
        instruction_sets=("SSE4.2", "AVX", "F16C", "FMA", "AVX2"),
    )


def test_a_processor_with_fast_and_small_cores(make_machine):
    root = make_machine(pcs.intel_hybrid("12th Gen Intel(R) Core(TM) i7-12700H", 6, 8))
    cpu = read_cpu(root, "x86_64")
    assert (cpu.physical_cores_count, cpu.logical_cores_count, cpu.performance_cores_count) == (14, 20, 6)
    assert "AVX_VNNI" in cpu.instruction_sets


def test_a_container_that_shows_fewer_cores_than_are_listed(make_machine):
    files = pcs.intel_hybrid("12th Gen Intel(R) Core(TM) i7-12700H", 6, 8)
    shown = pcs.intel("12th Gen Intel(R) Core(TM) i7-12700H", pcs.ALDER_LAKE_FLAGS, [0, 0, 1, 1])
    cpu = read_cpu(make_machine({**files, **shown}), "x86_64")
    assert (cpu.physical_cores_count, cpu.performance_cores_count) == (2, 2)


def test_cores_of_one_kind_are_not_called_fast(make_machine):
    # Intel's driver has a list of them on processors without small cores, too.
    files = {
        **pcs.intel("Intel(R) Core(TM) i5-12400", pcs.ALDER_LAKE_FLAGS, pcs.neighbours(6)),
        "sys/devices/cpu_core/cpus": "0-11\n",
    }
    assert read_cpu(make_machine(files), "x86_64").performance_cores_count == 0


def test_the_topology_knows_better_than_cpuinfo(make_machine):
    # Two sockets of a virtual machine whose cpuinfo calls every core the first of the first package.
    text = pcs.cpuinfo("GenuineIntel", "Intel Xeon", pcs.SKYLAKE_SERVER_FLAGS, [0, 0, 0, 0])
    root = make_machine({"proc/cpuinfo": text, **topology(["0,2", "1,3", "0,2", "1,3"])})
    cpu = read_cpu(root, "x86_64")
    assert (cpu.physical_cores_count, cpu.logical_cores_count) == (2, 4)


def test_a_raspberry_pi(make_machine):
    cpu = read_cpu(make_machine({"proc/cpuinfo": RASPBERRY_PI_5}), "aarch64")
    assert cpu == Cpu(
        model="ARM Cortex-A76",
        architecture="arm64",
        physical_cores_count=2,
        logical_cores_count=2,
        instruction_sets=("NEON", "FP16", "DOTPROD"),
    )


def test_an_arm_processor_with_cores_of_two_kinds(make_machine):
    # The GB10 of a DGX Spark: ten of each, in groups of five.
    parts = (["0xd87"] * 5 + ["0xd85"] * 5) * 2
    capacities = [718 if part == "0xd87" else 1024 for part in parts]
    root = make_machine(
        {
            "proc/cpuinfo": "\n".join(arm_core(number, part) for number, part in enumerate(parts)),
            **topology([str(number) for number in range(20)], capacities),
        }
    )
    cpu = read_cpu(root, "aarch64")
    assert cpu.model == "ARM Cortex-X925 + ARM Cortex-A725"
    assert (cpu.physical_cores_count, cpu.performance_cores_count) == (20, 10)
    assert cpu.instruction_sets == ("NEON", "FP16", "DOTPROD", "I8MM", "BF16", "SVE", "SVE2")


def test_cores_by_their_clocks_where_nothing_else_tells(make_machine):
    # Zen 5 and Zen 5c on one chip.
    folder = "sys/devices/system/cpu"
    clocks = {
        f"{folder}/cpu{number}/cpufreq/cpuinfo_max_freq": f"{clock}\n"
        for number, clock in enumerate([5_157_895, 5_157_895, 3_506_493, 3_506_493])
    }
    files = {**pcs.amd("AMD Ryzen AI 9 HX 370", pcs.ZEN5_FLAGS, [0, 1, 2, 3]), **clocks}
    assert read_cpu(make_machine(files), "x86_64").performance_cores_count == 2


def test_one_core_without_a_capacity_says_nothing_of_the_others(make_machine):
    files = {
        **pcs.amd("AMD EPYC", pcs.ZEN4_FLAGS, [0, 1]),
        **topology(["0", "1"]),
        "sys/devices/system/cpu/cpu0/cpu_capacity": "1024\n",
    }
    assert read_cpu(make_machine(files), "x86_64").performance_cores_count == 0


def test_a_machine_that_hides_its_processor(make_machine):
    assert read_cpu(make_machine({}), "riscv64") == Cpu(
        model="", architecture="riscv64", physical_cores_count=0, logical_cores_count=0
    )


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0-3,8,10-11\n", {0, 1, 2, 3, 8, 10, 11}),
        ("0", {0}),
        ("", set()),
        ("\n", set()),
        ("0-", {0}),
        ("3-1", set()),
        ("0-99999999", set()),
        ("a-b", set()),
        ("1,,2", set()),
    ],
)
def test_lists_of_processors(text, numbers):
    assert parse_cpu_list(text) == numbers


def test_favoured_cores_are_no_other_kind():
    assert fast_cpus({0: 5_700_000, 1: 5_500_000, 2: 5_100_000}) == frozenset()
    assert fast_cpus({0: 1024, 1: 1024, 2: 384}) == {0, 1}
    assert fast_cpus({}) == frozenset()


@pytest.mark.parametrize(
    ("implementer", "part", "name"),
    [
        (0x41, 0xD0C, "ARM Neoverse-N1"),
        (0x51, 0x001, "Qualcomm Oryon"),
        (0x41, 0xFFF, "ARM core 0xfff"),
        (0x99, 0x001, "ARM maker 0x99 core 0x001"),
    ],
)
def test_names_of_arm_cores(implementer, part, name):
    assert core_name(implementer, part) == name


def test_architectures_have_one_name():
    assert [architecture_name(word) for word in ("aarch64", "arm64", "x86_64", "amd64")] == [
        "arm64", "arm64", "x86_64", "x86_64",
    ]  # fmt: skip


def test_blank_words_in_a_name_are_folded():
    assert (
        parse_cpuinfo("processor: 0\nmodel name: Intel(R)  Core(TM)   i7\n").model == "Intel(R) Core(TM) i7"
    )


def test_a_text_that_ends_in_the_middle():
    text = pcs.cpuinfo("AuthenticAMD", "AMD Ryzen 5 5600X", pcs.ZEN_FLAGS, [0, 1])
    for end in range(len(text)):
        assert len(parse_cpuinfo(text[:end]).cores) <= 2


@given(st.text())
def test_nonsense_is_no_processor(text):
    info = parse_cpuinfo(text)
    assert all(isinstance(number, int) for number in info.cores)
