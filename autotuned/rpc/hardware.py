"""Core to wire: the machine, what models may take of it, and what is recommended for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotune.v1 import hardware_pb2, registry_service_pb2, system_service_pb2

from autotuned.core.hardware import Bandwidth, BandwidthSource, Gpu, Hardware, PowerSource, ThermalState
from autotuned.core.memory import MemoryReading
from autotuned.core.model import LayerGroup
from autotuned.core.registry import RegistryModel, RegistrySize
from autotuned.policy.applications import Closing
from autotuned.policy.places import Place, PlaceBudget
from autotuned.policy.recommendation import Recommendation
from autotuned.policy.use_cases import UseCase
from autotuned.rpc.fields import known
from autotuned.rpc.plans import fit_message, footprint_message, reason_messages
from autotuned.services.hardware import HardwareReport, InstalledFit
from autotuned.services.recommend import Advice

_BANDWIDTH_SOURCES = {
    BandwidthSource.UNKNOWN: hardware_pb2.BANDWIDTH_SOURCE_UNSPECIFIED,
    BandwidthSource.MEASURED: hardware_pb2.BANDWIDTH_SOURCE_MEASURED,
    BandwidthSource.SPECIFIED: hardware_pb2.BANDWIDTH_SOURCE_SPECIFIED,
}
_POWER_SOURCES = {
    PowerSource.UNKNOWN: hardware_pb2.POWER_SOURCE_UNSPECIFIED,
    PowerSource.MAINS: hardware_pb2.POWER_SOURCE_MAINS,
    PowerSource.BATTERY: hardware_pb2.POWER_SOURCE_BATTERY,
}
_THERMAL_STATES = {
    ThermalState.UNKNOWN: hardware_pb2.THERMAL_STATE_UNSPECIFIED,
    ThermalState.NOMINAL: hardware_pb2.THERMAL_STATE_NOMINAL,
    ThermalState.FAIR: hardware_pb2.THERMAL_STATE_FAIR,
    ThermalState.SERIOUS: hardware_pb2.THERMAL_STATE_SERIOUS,
    ThermalState.CRITICAL: hardware_pb2.THERMAL_STATE_CRITICAL,
}
_PLACES = {
    Place.RAM: hardware_pb2.MEMORY_PLACE_RAM,
    Place.UNIFIED: hardware_pb2.MEMORY_PLACE_UNIFIED,
    Place.GPU: hardware_pb2.MEMORY_PLACE_GPU,
}


_USE_CASES: Mapping[int, UseCase] = {
    registry_service_pb2.USE_CASE_UNSPECIFIED: UseCase.CHAT,
    registry_service_pb2.USE_CASE_CHAT: UseCase.CHAT,
    registry_service_pb2.USE_CASE_CODING: UseCase.CODING,
    registry_service_pb2.USE_CASE_REASONING: UseCase.REASONING,
    registry_service_pb2.USE_CASE_AGENTS: UseCase.AGENTS,
}


def use_case(value: int) -> UseCase:
    """What a wire value asks for. Raises ``FieldInvalid``."""
    return known("use_case", _USE_CASES, value)


def advice_response(advice: Advice) -> registry_service_pb2.RecommendModelsResponse:
    """What is recommended."""
    return registry_service_pb2.RecommendModelsResponse(
        recommendations=[recommendation_message(pick) for pick in advice.recommendations.picks],
        budgets=budget_messages(advice.budgets),
        reasons=reason_messages(advice.recommendations.reasons),
    )


def hardware_response(report: HardwareReport) -> system_service_pb2.GetHardwareResponse:
    """All of it."""
    return system_service_pb2.GetHardwareResponse(
        hardware=hardware_message(report.hardware, report.reading),
        budgets=budget_messages(report.budgets),
        models=[_installed_message(fit) for fit in report.fits],
        applications=[_application_message(closing) for closing in report.closings],
    )


def hardware_message(hardware: Hardware, reading: MemoryReading) -> hardware_pb2.Hardware:
    """The machine, with its memory as it stands."""
    cpu = hardware.cpu
    return hardware_pb2.Hardware(
        system=hardware.system,
        model=hardware.model,
        cpu=hardware_pb2.Cpu(
            model=cpu.model,
            architecture=cpu.architecture,
            physical_cores_count=cpu.physical_cores_count,
            logical_cores_count=cpu.logical_cores_count,
            performance_cores_count=cpu.performance_cores_count,
            instruction_sets=cpu.instruction_sets,
        ),
        memory_total_bytes=hardware.memory_bytes,
        memory_bandwidth=_bandwidth(hardware.memory_bandwidth),
        gpus=[_gpu(gpu) for gpu in hardware.gpus],
        power_source=_POWER_SOURCES[hardware.power.source],
        battery_percent=hardware.power.battery_percent,
        thermal_state=_THERMAL_STATES[hardware.power.thermal],
        memory_limit_bytes=reading.limit_bytes,
        swap_total_bytes=reading.swap_total_bytes,
        swap_used_bytes=max(0, reading.swap_total_bytes - reading.swap_free_bytes),
        memory_available_bytes=reading.available_bytes,
    )


def budget_messages(budgets: Sequence[PlaceBudget]) -> list[hardware_pb2.MemoryBudget]:
    """What models may take of each kind of memory."""
    return [_budget(budget) for budget in budgets]


def recommendation_message(pick: Recommendation) -> registry_service_pb2.Recommendation:
    """A model that suits."""
    return registry_service_pb2.Recommendation(
        model=registry_model_message(pick.model),
        size=_size(pick.size),
        pull_name=pick.pull_name,
        budget=_budget(pick.budget),
        footprint=footprint_message(pick.footprint),
        context_tokens=pick.context_tokens,
        estimated_tokens_per_second=pick.tokens_per_second,
        score=pick.score,
        reasons=reason_messages(pick.reasons),
        installed_as=pick.installed_as,
    )


def registry_model_message(model: RegistryModel) -> registry_service_pb2.RegistryModel:
    """A model that could be downloaded."""
    return registry_service_pb2.RegistryModel(
        id=model.id,
        name=model.name,
        publisher=model.publisher,
        license=model.license,
        release_month=model.released,
        parameters_count=model.parameters_count,
        active_parameters_count=model.active_parameters_count,
        architecture=model.architecture,
        layers_count=model.layers_count,
        train_context_tokens=model.train_context_tokens,
        layers=[_layers(group) for group in model.layer_groups],
        thinks=model.thinks,
        calls_tools=model.calls_tools,
        modalities=model.modalities,
        names=model.names,
        sizes=[_size(size) for size in model.sizes],
        overall_score=model.overall_score,
        ranks={
            task: registry_service_pb2.RegistryRank(place=rank.place, models_count=rank.models_count)
            for task, rank in model.ranks.items()
        },
        sources=model.sources,
        notes=model.notes,
        is_own=model.is_own,
    )


def _budget(budget: PlaceBudget) -> hardware_pb2.MemoryBudget:
    return hardware_pb2.MemoryBudget(
        place=_PLACES[budget.place],
        name=budget.name,
        capacity_bytes=budget.capacity_bytes,
        available_bytes=budget.available_bytes,
        bandwidth=_bandwidth(budget.bandwidth),
        reasons=reason_messages(budget.reasons),
        is_used=budget.is_used,
    )


def _bandwidth(bandwidth: Bandwidth) -> hardware_pb2.Bandwidth:
    return hardware_pb2.Bandwidth(
        bytes_per_second=bandwidth.bytes_per_second, source=_BANDWIDTH_SOURCES[bandwidth.source]
    )


def _gpu(gpu: Gpu) -> hardware_pb2.Gpu:
    return hardware_pb2.Gpu(
        name=gpu.name,
        vendor=gpu.vendor.value,
        unified=gpu.unified,
        memory_total_bytes=gpu.memory_bytes,
        memory_free_bytes=gpu.free_bytes,
        memory_bandwidth=_bandwidth(gpu.bandwidth),
        driver=gpu.driver,
    )


def _installed_message(installed: InstalledFit) -> hardware_pb2.ModelFit:
    return hardware_pb2.ModelFit(
        model=installed.model_id,
        engine=installed.engine,
        fit=fit_message(installed.fit) if installed.fit else None,
        estimated_tokens_per_second=installed.tokens_per_second,
    )


def _application_message(closing: Closing) -> hardware_pb2.Application:
    return hardware_pb2.Application(
        name=closing.application.name,
        processes_count=closing.application.processes_count,
        memory_bytes=closing.application.memory_bytes,
        enabled_models=closing.enabled_models,
    )


def _layers(group: LayerGroup) -> registry_service_pb2.RegistryLayers:
    return registry_service_pb2.RegistryLayers(
        layers_count=group.layers_count,
        kv_heads_count=group.kv_heads,
        key_length=group.key_length,
        value_length=group.value_length,
        window_tokens=group.window_tokens,
        recurrent_elements_count=group.recurrent_elements,
    )


def _size(size: RegistrySize) -> registry_service_pb2.RegistrySize:
    return registry_service_pb2.RegistrySize(
        of=size.of, quantization=size.quantization, size_bytes=size.size_bytes
    )
