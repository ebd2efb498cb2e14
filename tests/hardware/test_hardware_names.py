"""Names of systems and machines, from what distributions and makers write."""

from __future__ import annotations

import pytest

from autotuned.hardware.names import machine_model, parse_os_release, read_model, read_system

DEBIAN = """\
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
ID=debian
"""
ALPINE = "NAME=Alpine Linux\nID=alpine\nVERSION_ID=3.20.3\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (DEBIAN, "Debian GNU/Linux 12 (bookworm)"),
        (ALPINE, "Alpine Linux 3.20.3"),
        ("PRETTY_NAME='Arch Linux'\n", "Arch Linux"),
        ("# PRETTY_NAME=no\nNAME=Gentoo\n", "Gentoo"),
        ("", ""),
        ("nonsense\n==\n", ""),
    ],
)
def test_os_release(text, name):
    assert parse_os_release(text) == name


def test_the_system_where_distributions_keep_its_name(make_machine):
    assert read_system(make_machine({"usr/lib/os-release": DEBIAN})) == "Debian GNU/Linux 12 (bookworm)"


def test_a_system_without_a_name(make_machine):
    assert read_system(make_machine({})) == "Linux"


def test_windows_shows_through(make_machine):
    files = {
        "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04 LTS"\n',
        "proc/sys/kernel/osrelease": "6.6.87.2-microsoft-standard-WSL2\n",
    }
    assert read_system(make_machine(files)) == "Ubuntu 24.04 LTS under Windows"


@pytest.mark.parametrize(
    ("maker", "product", "version", "model"),
    [
        ("LENOVO", "20L5CTO1WW", "ThinkPad T480", "Lenovo ThinkPad T480"),
        ("LENOVO", "20L5CTO1WW", "INVALID", "Lenovo 20L5CTO1WW"),
        ("Dell Inc.", "XPS 13 9310", "", "Dell XPS 13 9310"),
        ("ASUSTeK COMPUTER INC.", "ASUS TUF Gaming A15", "1.0", "ASUS TUF Gaming A15"),
        ("Framework", "Laptop 13 (AMD Ryzen 7040Series)", "A7", "Framework Laptop 13 (AMD Ryzen 7040Series)"),
        ("To Be Filled By O.E.M.", "To Be Filled By O.E.M.", "", ""),
        ("System manufacturer", "System Product Name", "System Version", ""),
        ("", "Standard PC (Q35 + ICH9, 2009)", "", "Standard PC (Q35 + ICH9, 2009)"),
    ],
)
def test_makers_and_products(maker, product, version, model):
    assert machine_model(maker, product, version) == model


def test_the_board_stands_for_a_machine_without_a_name(make_machine):
    files = {
        "sys_vendor": "System manufacturer",
        "product_name": "System Product Name",
        "board_vendor": "ASUSTeK COMPUTER INC.",
        "board_name": "ROG STRIX B550-F GAMING",
    }
    root = make_machine({f"sys/class/dmi/id/{name}": f"{text}\n" for name, text in files.items()})
    assert read_model(root) == "ASUS ROG STRIX B550-F GAMING"


def test_a_board_with_a_device_tree(make_machine):
    root = make_machine({"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    assert read_model(root) == "Raspberry Pi 5 Model B Rev 1.0"


def test_a_machine_that_nobody_named(make_machine):
    assert read_model(make_machine({})) == ""
