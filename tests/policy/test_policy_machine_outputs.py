"""The README shows what recorded machines print: exactly that."""

from __future__ import annotations

import pytest

from autotuned.policy.use_cases import UseCase
from tests.machine_outputs import hardware_text, in_readme, readme_part, recommend_text
from tests.machines import MACHINES


def test_the_readme_shows_what_recorded_machines_print():
    assert in_readme() == readme_part(), "python -m tests.machine_outputs writes it again"


def test_ten_machines_are_shown():
    assert sum(machine.in_readme for machine in MACHINES) == 10


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.key)
def test_no_line_is_wider_than_a_terminal(machine):
    texts = [hardware_text(machine), *(recommend_text(machine, use_case) for use_case in UseCase)]
    wide = [line for text in texts for line in text.splitlines() if len(line) > 80]
    assert wide == []
