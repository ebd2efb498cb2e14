"""GPUs of AMD and Intel from the files of their drivers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.hardware import Bandwidth, BandwidthSource, Gpu, GpuVendor
from autotuned.hardware import drm
from autotuned.hardware.drm import Card, gpu_of, parse_window, read_gpus
from tests import recorded_pcs as pcs

GIB = 1 << 30
KEYS = ("chip", "name", "device", "revision", "cores", "memory_gib")

# The PCI windows of an Arc A770 with its whole memory in the third of them.
ARC_RESOURCE = """\
0x0000006001000000 0x0000006001ffffff 0x0000000000140204
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000006400000000 0x00000067ffffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
"""
SMALL_WINDOW_RESOURCE = ARC_RESOURCE.replace("0x00000067ffffffff", "0x000000640fffffff")


def specified(gigabytes_per_second: int) -> Bandwidth:
    return Bandwidth(bytes_per_second=gigabytes_per_second * 10**9, source=BandwidthSource.SPECIFIED)


def test_a_discrete_gpu_of_amd(make_machine):
    files = {
        **pcs.amd_card("1002:744c", "c8", vram=25_753_026_560, used=536_870_912),
        "sys/module/amdgpu/version": "6.16.6\n",
        "sys/class/drm/card1-DP-1/device/vendor": "0x1002\n",  # a connector is no card
    }
    assert read_gpus(make_machine(files)) == (
        Gpu(
            name="AMD Radeon RX 7900 XTX",
            vendor=GpuVendor.AMD,
            memory_bytes=25_753_026_560,
            free_bytes=25_753_026_560 - 536_870_912,
            bandwidth=specified(960),
            driver="6.16.6",
        ),
    )


def test_cards_of_one_device_differ_by_their_revision(make_machine):
    files = pcs.amd_card("1002:744c", "cc", vram=20 * GIB, used=0)
    [gpu] = read_gpus(make_machine(files))
    assert (gpu.name, gpu.bandwidth) == ("AMD Radeon RX 7900 XT", specified(800))


def test_a_gpu_that_shares_the_memory(make_machine):
    files = pcs.amd_card("1002:1586", "c1", vram=GIB // 2, used=241_172_480, vram_maker="unknown")
    [gpu] = read_gpus(make_machine(files))
    assert (gpu.name, gpu.unified, gpu.bandwidth) == ("AMD Radeon 8060S Graphics", True, specified(256))
    assert (gpu.memory_bytes, gpu.free_bytes) == (GIB // 2, GIB // 2 - 241_172_480)


def test_a_later_revision_of_a_known_device_still_shares_the_memory(make_machine):
    files = pcs.amd_card("1002:1586", "e9", vram=96 * GIB, used=0, vram_maker="unknown")
    [gpu] = read_gpus(make_machine(files))
    assert (gpu.unified, gpu.memory_bytes, gpu.bandwidth) == (True, 96 * GIB, Bandwidth())


@pytest.mark.parametrize(
    ("card", "unified", "name"),
    [
        # Of next year: its memory has a maker.
        (Card(vendor="0x1002", device="7fff", vram_maker="hynix", memory_bytes=3 * GIB), False, "1002:7fff"),
        # An old one, which does not tell of a maker but has much.
        (
            Card(vendor="0x1002", device="67df", vram_maker="unknown", memory_bytes=8 * GIB),
            False,
            "1002:67df",
        ),
        # In a processor of next year.
        (
            Card(vendor="0x1002", device="1999", vram_maker="unknown", memory_bytes=GIB // 2),
            True,
            "1002:1999",
        ),
    ],
)
def test_gpus_that_the_table_does_not_know(card, unified, name):
    gpu = gpu_of(card)
    assert gpu is not None
    assert (gpu.unified, gpu.name, gpu.bandwidth) == (unified, f"AMD GPU {name}", Bandwidth())


def test_the_product_names_what_the_table_does_not(make_machine):
    files = pcs.card(
        0,
        "amdgpu",
        "1002:75f0",
        "0000:03:00.0",
        product_name="AMD Instinct MI999",
        mem_info_vram_vendor="hynix",
    )
    [gpu] = read_gpus(make_machine(files))
    assert (gpu.name, gpu.memory_bytes, gpu.free_bytes) == ("AMD Instinct MI999", 0, None)


@pytest.mark.parametrize(
    ("device", "resource", "memory", "bandwidth"),
    [
        ("56a0", ARC_RESOURCE, 16 * GIB, specified(560)),
        ("56a0", ARC_RESOURCE.replace("67ffffffff", "65ffffffff"), 8 * GIB, specified(512)),
        ("56a0", SMALL_WINDOW_RESOURCE, 0, Bandwidth()),  # 8 or 16 GB: nobody tells
        ("e20b", SMALL_WINDOW_RESOURCE, 12 * GIB, specified(456)),
        ("e2ff", SMALL_WINDOW_RESOURCE, 0, Bandwidth()),
    ],
)
def test_discrete_gpus_of_intel(make_machine, device, resource, memory, bandwidth):
    [gpu] = read_gpus(make_machine(pcs.card(0, "xe", f"8086:{device}", "0000:03:00.0", resource=resource)))
    assert (gpu.vendor, gpu.unified) == (GpuVendor.INTEL, False)
    assert (gpu.memory_bytes, gpu.bandwidth) == (memory, bandwidth)


def test_a_driver_of_intel_that_tells_the_memory(make_machine):
    files = {
        **pcs.card(0, "i915", "8086:56a0", "0000:03:00.0"),
        "sys/class/drm/card0/lmem_total_bytes": f"{16 * GIB}\n",
    }
    [gpu] = read_gpus(make_machine(files))
    assert (gpu.name, gpu.memory_bytes, gpu.bandwidth) == ("Intel Arc A770", 16 * GIB, specified(560))


def test_graphics_in_a_processor_of_intel_come_last(make_machine):
    files = {
        **pcs.card(0, "i915", "8086:46a6", "0000:00:02.0"),
        **pcs.card(10, "xe", "8086:e20b", "0000:03:00.0"),
    }
    discrete, integrated = read_gpus(make_machine(files))
    assert discrete.name == "Intel Arc B580"
    assert integrated == Gpu(name="Intel integrated graphics", vendor=GpuVendor.INTEL, unified=True)


@pytest.mark.parametrize(
    "files",
    [
        {},
        pcs.card(0, "virtio_gpu", "1af4:1050", "0000:00:01.0"),
        pcs.card(0, "ast", "1a03:2000", "0000:04:00.0"),
        {"sys/class/drm/card0/device/uevent": "DRIVER=simple-framebuffer\n"},
        {"sys/class/drm/version": "drm 1.1.0 20060810\n"},
    ],
)
def test_machines_without_such_gpus(make_machine, files):
    assert read_gpus(make_machine(files)) == ()


@pytest.mark.parametrize(
    ("resource", "size"), [("", 0), ("0x0 0x0 0x0\n" * 3, 0), ("a\nb\nc\n", 0), ("\n\n0x10 0x1f 0x0\n", 16)]
)
def test_windows(resource, size):
    assert parse_window(resource, 2) == size


@given(st.text(), st.text(max_size=6), st.text(max_size=6))
def test_nonsense_is_a_gpu_without_figures(resource, device, revision):
    assert parse_window(resource, 2) >= 0
    for vendor in ("0x1002", "0x8086"):
        gpu = gpu_of(Card(vendor=vendor, device=f"?{device}", revision=revision))
        assert gpu is not None
        assert gpu.memory_bytes == 0


def test_every_line_of_the_table_has_a_name_and_a_source():
    table = json.loads((Path(drm.__file__).parents[1] / "data" / "bandwidths.json").read_text())
    assert set(table) == {"apple", "nvidia", "amd", "intel"}
    for maker, lines in table.items():
        keys = [tuple(line.get(key) for key in KEYS) for line in lines]
        assert len(set(keys)) == len(keys), maker
        for line in lines:
            assert all(source.startswith("https://") for source in line["source"].split("; "))
            assert line.get("chip") or line["name"]
            assert line.get("unified") or line["gigabytes_per_second"] > 0
