"""Recommendations in words. Pure. ``recommend`` shows them whole, ``pull`` without a name as a choice.

Invariant: an estimate is called one, and what is shown as a command does what it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autotune.v1 import registry_service_pb2

from autotunectl.output import (
    NOTHING,
    PLAIN,
    Column,
    Style,
    command_text,
    format_amount,
    format_bytes,
    format_number,
    format_parameters,
    format_speed,
    format_table,
    format_wrapped,
    one_line,
)
from autotunectl.plans import indented, indented_wrapped
from autotunectl.pull_texts import pull_command

_SUBJECTS = {"quality": "quality", "fit": "memory", "speed": "speed"}
"""What a reason of the daemon is about, by its code; the others say why it is this model."""
_CHOICE_COLUMNS = (
    Column("#", right=True),
    Column("MODEL"),
    Column("SIZE", right=True),
    Column("ESTIMATED SPEED", right=True),
    Column("NAME"),
)


def render(
    response: registry_service_pb2.RecommendModelsResponse, use_case: str, style: Style = PLAIN
) -> str:
    """The best with all that speaks for it, then the others, then what holds for all of them."""
    if not response.recommendations:
        return nothing_fits_text(response)
    best, *others = response.recommendations
    parts = [_whole(f"Best for {use_case}: ", best, style)]
    parts += [_whole("Or: ", other, style) for other in others]
    if response.reasons:
        reasons = format_wrapped([("", reason.text) for reason in response.reasons], value_column=2)
        parts.append(f"For all of them:\n{reasons}")
    return "\n".join(parts)


def nothing_fits_text(response: registry_service_pb2.RecommendModelsResponse) -> str:
    """That nothing fits, what there is, and the daemon's reasons, one of which has what would be needed."""
    budgets = [
        (one_line(budget.name), f"a model may take {format_amount(budget.capacity_bytes)}")
        for budget in response.budgets
    ]
    lines = [*budgets, *(("why", reason.text) for reason in response.reasons)]
    return f"None of the known models fits into this machine.\n{indented_wrapped(lines)}"


def choice_text(recommendations: Sequence[registry_service_pb2.Recommendation], style: Style = PLAIN) -> str:
    """Numbered, a line each, with the name that a pull takes."""
    rows = [(str(number), *_choice_row(choice)) for number, choice in enumerate(recommendations, start=1)]
    return format_table(_CHOICE_COLUMNS, rows, style)


def _choice_row(choice: registry_service_pb2.Recommendation) -> tuple[str, ...]:
    speed = choice.estimated_tokens_per_second
    installed = " (installed)" if choice.installed_as else ""
    return (
        choice.model.name or choice.model.id,
        format_bytes(choice.size.size_bytes),
        f"{format_number(speed)} tokens/s" if speed > 0 else NOTHING,
        f"{choice.pull_name}{installed}",
    )


def _whole(before: str, choice: registry_service_pb2.Recommendation, style: Style) -> str:
    installed = ", installed" if choice.installed_as else ""
    name = one_line(choice.model.name or choice.model.id)
    title = style.bold(f"{before}{name}{installed}")
    return f"{title}\n{indented_wrapped(list(_lines(choice)))}{indented([_command(choice)])}"


def _lines(choice: registry_service_pb2.Recommendation) -> Iterator[tuple[str, str]]:
    model, size = choice.model, choice.size
    as_what = f" as {size.quantization}" if size.quantization else ""
    yield "size", f"{format_bytes(size.size_bytes)}{as_what}, {_parameters(model)}"
    yield "license", model.license or "unknown"
    told = {reason.code for reason in choice.reasons}
    if "speed" not in told:
        yield "speed", format_speed(choice.estimated_tokens_per_second)
    if "fit" not in told:
        yield "memory", _memory(choice)
    yield from ((_SUBJECTS.get(reason.code, "why"), reason.text) for reason in choice.reasons)


def _command(choice: registry_service_pb2.Recommendation) -> tuple[str, str]:
    """What to do with it; a line that is never broken, so that it can be copied."""
    if choice.installed_as:
        return "talk", command_text("autotunectl", "chat", "--model", choice.installed_as)
    return "get it", pull_command(choice.pull_name)


def _parameters(model: registry_service_pb2.RegistryModel) -> str:
    text = f"{format_parameters(model.parameters_count)} parameters"
    if 0 < model.active_parameters_count < model.parameters_count:
        return f"{text}, {format_parameters(model.active_parameters_count)} of them for each token"
    return text


def _memory(choice: registry_service_pb2.Recommendation) -> str:
    place = choice.budget.name or "memory"
    takes = f"{format_amount(choice.footprint.total_bytes)} of {place}"
    return f"{takes} with a context of {choice.context_tokens:,} tokens"
