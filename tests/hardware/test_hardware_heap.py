"""What glibc keeps of freed memory goes back to the system."""

import ctypes
import platform

from autotuned.hardware import heap


def test_the_c_library_is_told_where_it_can_be():
    assert heap.trim_heap() is (platform.libc_ver()[0] == "glibc")


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert heap.trim_heap() is False
