"""The hardware in words: parts, budgets, installed models, applications to close. Pure.

``hardware`` shows it. Invariant: what the system does not tell is left out or called unknown, and an estimate
is called one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from autotune.v1 import hardware_pb2, system_service_pb2

from autotunectl.json_output import enum_text
from autotunectl.output import (
    NOTHING,
    PLAIN,
    Column,
    Style,
    format_amount,
    format_bytes,
    format_count,
    format_number,
    format_table,
    format_wrapped,
    one_line,
)
from autotunectl.plans import fit_name

_MODEL_COLUMNS = (
    Column("MODEL"),
    Column("ENGINE"),
    Column("FIT"),
    Column("SAFE CONTEXT", right=True),
    Column("ESTIMATED SPEED", right=True),
)
_NAMED_MODELS = 3
_UNUSED = "gpu-unused"
"""The daemon's own sentence that nothing computes there, and what to do about it."""
_NO_MODEL = 'No model is installed; "autotunectl recommend" says which to get.'
_BYTES_A_GIGABYTE = 1e9  # of bandwidths, as makers tell them


def render(response: system_service_pb2.GetHardwareResponse, style: Style = PLAIN) -> str:
    """All of it."""
    text = format_wrapped([*_machine(response.hardware), *_budgets(response.budgets)])
    if response.models:
        text += "\n" + format_table(_MODEL_COLUMNS, [_model_row(model) for model in response.models], style)
    else:
        text += f"\n{_NO_MODEL}\n"
    if response.applications:
        lines = [(_name(application), gain_text(application)) for application in response.applications]
        text += "\nClosing applications would free memory, by estimate:\n" + format_wrapped(lines, indent=2)
    return text


def bandwidth_text(bandwidth: hardware_pb2.Bandwidth) -> str:
    """For example "41 GB/s (measured)"; "" where unknown."""
    if not bandwidth.bytes_per_second:
        return ""
    rate = f"{format_number(bandwidth.bytes_per_second / _BYTES_A_GIGABYTE)} GB/s"
    if bandwidth.source == hardware_pb2.BANDWIDTH_SOURCE_UNSPECIFIED:
        return rate
    return f"{rate} ({enum_text(bandwidth, 'source')})"


def gain_text(application: hardware_pb2.Application) -> str:
    """What closing it would free, and which models would fit then."""
    frees = f"frees {format_amount(application.memory_bytes)}"
    if not application.enabled_models:
        return frees
    named = list(application.enabled_models[:_NAMED_MODELS])
    more = len(application.enabled_models) - len(named)
    *before, last = [*named, f"{more} more"] if more else named
    return f"{frees}; {' and '.join(filter(None, (', '.join(before), last)))} would fit then"


def _machine(hardware: hardware_pb2.Hardware) -> Iterator[tuple[str, str]]:
    yield "System", hardware.system or "unknown"
    if hardware.model:
        yield "Machine", hardware.model
    yield "Processor", _cpu(hardware.cpu)
    if hardware.cpu.instruction_sets:
        yield "Computes", f"with {', '.join(hardware.cpu.instruction_sets)}"
    yield "Memory", _memory(hardware)
    if hardware.HasField("memory_limit_bytes"):
        limit = format_amount(hardware.memory_limit_bytes)
        yield "Limit", f"{limit}, of the control group that the daemon runs in"
    yield "Swap", _swap(hardware)
    for gpu in hardware.gpus:
        yield "GPU", _gpu(gpu)
    if not hardware.gpus:
        yield "GPU", "none"
    if hardware.power_source or hardware.HasField("battery_percent"):
        yield "Power", _power(hardware)
    if hardware.thermal_state:
        yield "Heat", enum_text(hardware, "thermal_state")


def _cpu(cpu: hardware_pb2.Cpu) -> str:
    parts = [cpu.model or "unknown"]
    if cpu.physical_cores_count:
        fast = f" ({cpu.performance_cores_count} fast)" if cpu.performance_cores_count else ""
        parts.append(f"{_counted(cpu.physical_cores_count, 'core')}{fast}")
    if cpu.logical_cores_count:
        parts.append(_counted(cpu.logical_cores_count, "thread"))
    if cpu.architecture:
        parts.append(cpu.architecture)
    return ", ".join(parts)


def _memory(hardware: hardware_pb2.Hardware) -> str:
    parts = [format_bytes(hardware.memory_total_bytes)]
    if hardware.memory_available_bytes:
        parts.append(f"{format_bytes(hardware.memory_available_bytes)} can be had")
    if bandwidth := bandwidth_text(hardware.memory_bandwidth):
        parts.append(f"read at {bandwidth}")
    return ", ".join(parts)


def _swap(hardware: hardware_pb2.Hardware) -> str:
    if not hardware.swap_total_bytes:
        return "none"
    return f"{format_amount(hardware.swap_used_bytes)} of {format_bytes(hardware.swap_total_bytes)} used"


def _gpu(gpu: hardware_pb2.Gpu) -> str:
    parts = [gpu.name or gpu.vendor or "unknown"]
    if gpu.unified:
        parts.append("shares the memory")
    if gpu.memory_total_bytes:
        parts.append(format_bytes(gpu.memory_total_bytes))
    if gpu.HasField("memory_free_bytes"):
        parts.append(f"{format_amount(gpu.memory_free_bytes)} free")
    if bandwidth := bandwidth_text(gpu.memory_bandwidth):
        parts.append(f"read at {bandwidth}")
    if gpu.driver:
        parts.append(f"driver {gpu.driver}")
    return ", ".join(parts)


def _power(hardware: hardware_pb2.Hardware) -> str:
    known = hardware.power_source != hardware_pb2.POWER_SOURCE_UNSPECIFIED
    source = enum_text(hardware, "power_source") if known else "unknown"
    if not hardware.HasField("battery_percent"):
        return source
    if hardware.power_source == hardware_pb2.POWER_SOURCE_BATTERY:
        return f"battery, {hardware.battery_percent} % charged"
    return f"{source}, battery {hardware.battery_percent} % charged"


def _budgets(budgets: Iterable[hardware_pb2.MemoryBudget]) -> Iterator[tuple[str, str]]:
    for budget in budgets:
        yield "Budget", budget_text(budget)
        yield from (("", reason.text) for reason in budget.reasons)


def budget_text(budget: hardware_pb2.MemoryBudget) -> str:
    """What a model may take, what it can have now, and whether anything computes there."""
    name = budget.name or enum_text(budget, "place")
    capacity, available = format_amount(budget.capacity_bytes), format_amount(budget.available_bytes)
    is_told = budget.is_used or any(reason.code == _UNUSED for reason in budget.reasons)
    used = "" if is_told else "; no engine uses it"
    return f"{name}: a model may take {capacity}, {available} of it now{used}"


def _model_row(model: hardware_pb2.ModelFit) -> tuple[str, ...]:
    speed = model.estimated_tokens_per_second
    return (
        model.model,
        model.engine or NOTHING,
        fit_name(model.fit) if model.HasField("fit") else "elsewhere",
        format_count(model.fit.safe_context_tokens),
        f"{format_number(speed)} tokens/s" if speed > 0 else NOTHING,
    )


def _name(application: hardware_pb2.Application) -> str:
    name = one_line(application.name)
    count = application.processes_count
    return f"{name} ({count} processes)" if count > 1 else name


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
