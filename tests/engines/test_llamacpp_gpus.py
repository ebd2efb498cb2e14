"""The GPUs that a machine shows in its files."""

import pytest

from autotuned.engines.llamacpp.gpus import machine_gpus


def lay_out(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({}, ()),
        ({"dev/nvidia0": ""}, ("NVIDIA GPU",)),
        ({"proc/driver/nvidia/version": "NVRM version: 580"}, ("NVIDIA GPU",)),
        (
            {
                "proc/driver/nvidia/version": "NVRM",
                "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1\n",
                "proc/driver/nvidia/gpus/0000:02:00.0/information": "Model:  GeForce RTX 4090\n",
            },
            ("NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090"),
        ),
        (
            {
                "sys/class/drm/card0/device/vendor": "0x1002\n",
                "sys/class/drm/card0/device/mem_info_vram_total": f"{24 << 30}\n",
                "sys/class/drm/card1/device/vendor": "0x1002\n",
                "sys/class/drm/card2/device/vendor": "0x8086\n",
                "sys/class/drm/card2/device/mem_info_vram_total": "5\n",
            },
            ("AMD GPU with 24.0 GiB",),
        ),
        (
            {
                "sys/class/drm/card0/device/vendor": "0x1002\n",
                "sys/class/drm/card0/device/mem_info_vram_total": f"{1 << 29}\n",
                "sys/class/drm/card0/device/product_name": "Radeon PRO W7900\n",
            },
            ("AMD Radeon PRO W7900 with 0.5 GiB",),
        ),
    ],
    ids=["none", "device", "driver", "named", "amd", "amd named"],
)
def test_the_gpus_of_a_linux_machine(tmp_path, files, names):
    lay_out(tmp_path, files)
    assert machine_gpus(tmp_path, platform="linux") == names


def test_the_gpus_of_others(tmp_path, monkeypatch):
    lay_out(tmp_path, {"dev/nvidia0": ""})
    assert machine_gpus(tmp_path, platform="win32") == ()
    monkeypatch.setattr("os.uname", lambda: type("Name", (), {"machine": "arm64"}))
    assert machine_gpus(tmp_path, platform="darwin") == ("Apple GPU",)
