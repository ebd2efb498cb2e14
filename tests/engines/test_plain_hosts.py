"""Which hosts may be asked without TLS."""

from __future__ import annotations

import pytest

from autotuned.engines.plain_hosts import is_on_this_machine, may_be_plain


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        *[
            (host, True)
            for host in ("localhost", "LOCALHOST:5000", "127.0.0.1", "127.8.0.1:80", "[::1]:5000")
        ],
        *[(host, False) for host in ("registry.ollama.ai", "10.0.0.1:5000", "localhost.example", "")],
    ],
)
def test_what_is_on_this_machine(host, is_here):
    assert is_on_this_machine(host) is is_here


@pytest.mark.parametrize(
    ("host", "is_plain"),
    [
        ("nas", True),
        ("NAS:5000", True),
        ("models.example:5000", True),
        ("models.example", False),
        ("models.example:5001", False),
        ("other.nas", False),
        ("127.0.0.1:80", True),
    ],
)
def test_what_is_named_in_the_settings(host, is_plain):
    assert may_be_plain(host, ("Nas", "models.example:5000")) is is_plain
