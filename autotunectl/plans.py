"""Plans in words: fit, memory by part, what was given up. Pure.

``plan``, ``run``, ``load`` and ``ps`` show them; ``shapes`` has the words for shapes. Invariant: every
number is the daemon's; nothing is computed here but sums and names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotune.v1 import plan_pb2

from autotunectl.json_output import enum_text
from autotunectl.output import (
    NOTHING,
    PLAIN,
    Column,
    Style,
    format_amount,
    format_bytes,
    format_table,
    format_wrapped,
    one_line,
)
from autotunectl.shapes import context_text

if TYPE_CHECKING:
    from autotune.v1 import model_pb2

FIT_NAMES = {"swap_risk": "swap risk", "oom": "out of memory"}
_RISKY = frozenset({plan_pb2.FIT_CLASS_SWAP_RISK, plan_pb2.FIT_CLASS_OOM})
_PARTS = (
    ("weights", "weights_bytes"),
    ("repacked weights", "repacked_weights_bytes"),
    ("KV cache", "kv_cache_bytes"),
    ("computation", "compute_bytes"),
    ("process", "process_bytes"),
)
_GIVEN_UP = (
    "nothing",
    "a quarter of the context",
    "half of the context",
    "half of the context, and a Q8_0 KV cache",
    "three quarters of the context, and a Q8_0 KV cache",
    "all of the context but the least, and a Q8_0 KV cache",
)


def is_risky(fit: plan_pb2.Fit) -> bool:
    """Whether the load would swap or fail."""
    return fit.fit_class in _RISKY


def fit_name(fit: plan_pb2.Fit) -> str:
    """The class in words."""
    name = enum_text(fit, "fit_class")
    return FIT_NAMES.get(name, name)


def fit_text(fit: plan_pb2.Fit) -> str:
    """The class, both sides in bytes, and what would fit."""
    needs = f"it takes {format_amount(fit.required_bytes)}, {format_amount(fit.available_bytes)} can be had"
    return f"{fit_name(fit)}: {needs}; {_ceiling(fit)}"


def _ceiling(fit: plan_pb2.Fit) -> str:
    if not fit.safe_context_tokens:
        return "no context of this model is safe here, a smaller model or quantization may be"
    return f"up to {fit.safe_context_tokens:,} tokens of context are safe with this KV cache"


def given_up_text(level: int) -> str:
    """What of the wanted shape was given up so that it fits."""
    if not 0 <= level < len(_GIVEN_UP):
        return f"level {level}"
    return _GIVEN_UP[level]


def footprint_text(footprint: plan_pb2.Footprint) -> str:
    """What is taken and its parts, in one line."""
    parts = [
        f"{format_bytes(getattr(footprint, field))} {name}"
        for name, field in _PARTS
        if getattr(footprint, field)
    ]
    return ": ".join(filter(None, (format_amount(_taken_bytes(footprint)), ", ".join(parts))))


def is_elsewhere(plan: plan_pb2.Plan) -> bool:
    """Whether the model takes nothing of this machine, because its server is another one."""
    return not plan.footprint.total_bytes


def _taken_bytes(footprint: plan_pb2.Footprint) -> int:
    """What is taken whatever is asked: all but what the prompt cache may grow to."""
    return footprint.total_bytes - footprint.host_prompt_cache_bytes


def memory_table(now: plan_pb2.Footprint | None, plan: plan_pb2.Plan, style: Style = PLAIN) -> str:
    """Bytes by part as the model is loaded now (None: it is not) and by plan, then what is available."""
    sides = (now, plan.footprint)
    rows: list[tuple[str, ...]] = [(name, *(_cell(side, field) for side in sides)) for name, field in _PARTS]
    rows.append(
        ("in all", *(NOTHING if side is None else format_amount(_taken_bytes(side)) for side in sides))
    )
    rows.append(("prompt cache, at most", *(_cell(side, "host_prompt_cache_bytes") for side in sides)))
    available = (plan.available_before_bytes, plan.available_after_bytes)
    if any(available):
        rows.append(("available", *(format_amount(size_bytes) for size_bytes in available)))
    return format_table(
        (Column("MEMORY"), Column("NOW", right=True), Column("AFTER", right=True)), rows, style
    )


def _cell(footprint: plan_pb2.Footprint | None, field: str) -> str:
    return NOTHING if footprint is None else format_amount(getattr(footprint, field))


def plan_lines(plan: plan_pb2.Plan, engine: str) -> list[tuple[str, str]]:
    """Names and values for a person who is about to use the model; what is as ever is left out."""
    lines = [("context", context_text(plan.shape, engine))]
    if not is_elsewhere(plan):
        lines.append(("memory", footprint_text(plan.footprint)))
    if plan.HasField("fit"):
        lines.append(("fit", fit_text(plan.fit)))
    if plan.reduction_level:
        lines.append(("gave up", given_up_text(plan.reduction_level)))
    if plan.evicted_models:
        lines.append(("evicts", ", ".join(plan.evicted_models)))
    if plan.pressure_tier > plan_pb2.PRESSURE_TIER_NORMAL:
        lines.append(("pressure", enum_text(plan, "pressure_tier")))
    lines += [("why", reason.text) for reason in plan.reasons]
    return lines


def indented(lines: Sequence[tuple[str, str]]) -> str:
    """Names and values under a headline; ends with a newline."""
    return "".join(f"  {name:<8} {one_line(value)}\n" for name, value in lines)


def indented_wrapped(lines: Sequence[tuple[str, str]]) -> str:
    """The same with long sentences broken; not for commands, which must stay whole."""
    return format_wrapped(lines, indent=2, value_column=11)


def footprint_of(
    running: Sequence[model_pb2.RunningModel], model: model_pb2.Model
) -> plan_pb2.Footprint | None:
    """What a model takes as it is loaded into its engine; None for one that is not."""
    names = {model.id, *(place.id for place in model.places if place.engine == model.engine)}
    for entry in running:
        if entry.id in names and entry.engine == model.engine and entry.HasField("footprint"):
            return entry.footprint
    return None
