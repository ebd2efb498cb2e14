"""What ``hardware`` and ``recommend`` print on recorded machines, and the part of the README that shows it.

``python -m tests.machine_outputs`` writes that part again; a test holds the README to it.
"""

from __future__ import annotations

from pathlib import Path

from autotune.v1 import registry_service_pb2

from autotunectl import hardware_report, recommendations
from autotuned.core.memory import MemoryView, PressureTier
from autotuned.policy.places import PlaceBudget, place_budgets
from autotuned.policy.recommend import recommend
from autotuned.policy.recommendation import Circumstances, Recommendations
from autotuned.policy.use_cases import UseCase
from autotuned.rpc.hardware import budget_messages, hardware_response, recommendation_message
from autotuned.rpc.plans import reason_messages
from autotuned.services.hardware import HardwareReport
from autotuned.storage.registry import packaged_models
from tests.examples import DEFAULTS
from tests.machines import MACHINES, RecordedMachine

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- recorded machines: begin -->", "<!-- recorded machines: end -->"
MODELS = packaged_models()


def budgets_of(machine: RecordedMachine) -> tuple[PlaceBudget, ...]:
    """With an engine that uses its GPU, where it has one."""
    return place_budgets(
        machine.hardware, _memory(machine), margin_bytes=DEFAULTS.margin_bytes, uses_gpu=True
    )


def recommended(machine: RecordedMachine, use_case: UseCase) -> Recommendations:
    """Where nothing is installed."""
    circumstances = Circumstances(
        budgets=budgets_of(machine), memory=_memory(machine), defaults=DEFAULTS, installed={}
    )
    return recommend(MODELS, use_case, circumstances)


def hardware_text(machine: RecordedMachine) -> str:
    """What ``autotunectl hardware`` prints before anything is installed or open."""
    report = HardwareReport(
        hardware=machine.hardware,
        reading=machine.memory,
        budgets=budgets_of(machine),
        fits=(),
        closings=(),
    )
    return hardware_report.render(hardware_response(report))


def recommend_text(machine: RecordedMachine, use_case: UseCase) -> str:
    """What ``autotunectl recommend`` prints."""
    found = recommended(machine, use_case)
    response = registry_service_pb2.RecommendModelsResponse(
        recommendations=[recommendation_message(pick) for pick in found.picks],
        budgets=budget_messages(budgets_of(machine)),
        reasons=reason_messages(found.reasons),
    )
    return recommendations.render(response, use_case.value)


def readme_part() -> str:
    """The table of all recorded machines, and what ten of them print."""
    lines = [
        "| machine | a model may take | chat | coding | reasoning | agents |",
        "|---|---:|---|---|---|---|",
    ]
    lines += [_row(machine) for machine in MACHINES]
    shown = [_details(machine) for machine in MACHINES if machine.in_readme]
    return "\n".join([BEGIN, *lines, "", *shown, END])


def in_readme() -> str:
    """The same as it stands in the README now."""
    text = README.read_text("utf-8")
    return text[text.index(BEGIN) : text.index(END) + len(END)]


def _memory(machine: RecordedMachine) -> MemoryView:
    return MemoryView(reading=machine.memory, pressure=PressureTier.NORMAL)


def _row(machine: RecordedMachine) -> str:
    budget = budgets_of(machine)[0]
    picks = [recommended(machine, use_case).picks[0] for use_case in UseCase]
    cells = [f"`{pick.pull_name}`, {pick.tokens_per_second:.0f}/s" for pick in picks]
    return f"| {machine.title} | {budget.capacity_bytes / 2**30:.1f} GiB | {' | '.join(cells)} |"


def _details(machine: RecordedMachine) -> str:
    return (
        f"<details><summary>{machine.title}</summary>\n\n```text\n$ autotunectl hardware\n"
        f"{hardware_text(machine)}$ autotunectl recommend\n{recommend_text(machine, UseCase.CHAT)}```\n\n"
        "</details>\n"
    )


def main() -> None:
    """Writes the part of the README again."""
    text = README.read_text("utf-8")
    README.write_text(text.replace(in_readme(), readme_part()), "utf-8")


if __name__ == "__main__":
    main()
