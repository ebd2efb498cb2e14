"""EngineService on the wire."""

from __future__ import annotations

from dataclasses import fields

import grpc
from autotune.v1 import engine_service_pb2, engine_service_pb2_grpc

from autotuned.core.engine import (
    ALL_SAMPLING,
    Capabilities,
    EngineResident,
    EngineState,
    Finding,
    Knobs,
    KnobScope,
    Severity,
)
from autotuned.rpc.response import timestamp
from autotuned.services.engines import EngineReport, Engines

_STATES = {
    EngineState.READY: engine_service_pb2.ENGINE_STATE_READY,
    EngineState.STARTING: engine_service_pb2.ENGINE_STATE_STARTING,
    EngineState.UNREACHABLE: engine_service_pb2.ENGINE_STATE_UNREACHABLE,
    EngineState.NOT_INSTALLED: engine_service_pb2.ENGINE_STATE_NOT_INSTALLED,
    EngineState.OFF: engine_service_pb2.ENGINE_STATE_OFF,
}
_SCOPES = {
    KnobScope.REQUEST: engine_service_pb2.KNOB_SCOPE_REQUEST,
    KnobScope.LOAD: engine_service_pb2.KNOB_SCOPE_LOAD,
    KnobScope.SERVER: engine_service_pb2.KNOB_SCOPE_SERVER,
    KnobScope.NONE: engine_service_pb2.KNOB_SCOPE_NONE,
}
_SEVERITIES = {
    Severity.INFO: engine_service_pb2.Finding.SEVERITY_INFO,
    Severity.WARNING: engine_service_pb2.Finding.SEVERITY_WARNING,
    Severity.PROBLEM: engine_service_pb2.Finding.SEVERITY_PROBLEM,
}
# Where it runs is told by its address and what computes.
_PLACES = frozenset({"is_local", "has_gpu"})
_FEATURES = tuple(
    field.name for field in fields(Capabilities) if field.type == "bool" and field.name not in _PLACES
)
_KNOBS = tuple(field.name for field in fields(Knobs))


class EngineServicer(engine_service_pb2_grpc.EngineServiceServicer):
    """Converts and forwards; the service decides."""

    def __init__(self, *, engines: Engines) -> None:
        self._engines = engines

    async def ListEngines(  # noqa: N802 - the proto's name
        self, _request: engine_service_pb2.ListEnginesRequest, _context: grpc.aio.ServicerContext
    ) -> engine_service_pb2.ListEnginesResponse:
        """See the proto."""
        reports = await self._engines.reports()
        return engine_service_pb2.ListEnginesResponse(engines=[_engine(report) for report in reports])

    async def ListFindings(  # noqa: N802 - the proto's name
        self, _request: engine_service_pb2.ListFindingsRequest, _context: grpc.aio.ServicerContext
    ) -> engine_service_pb2.ListFindingsResponse:
        """See the proto."""
        found = await self._engines.findings()
        return engine_service_pb2.ListFindingsResponse(findings=[_finding(each) for each in found])


def _engine(report: EngineReport) -> engine_service_pb2.Engine:
    status, capabilities = report.status, report.capabilities
    return engine_service_pb2.Engine(
        name=status.name,
        state=_STATES[status.state],
        version=status.version,
        address=status.address,
        detail=status.detail,
        accelerator=status.accelerator,
        models_count=report.models_count,
        features=[_kebab(name) for name in _FEATURES if getattr(capabilities, name)],
        missing_features=[_kebab(name) for name in _FEATURES if not getattr(capabilities, name)],
        missing_sampling=sorted(ALL_SAMPLING - capabilities.sampling),
        knobs=[
            engine_service_pb2.Knob(name=name, scope=_SCOPES[getattr(capabilities.knobs, name)])
            for name in _KNOBS
        ],
        slots_count=capabilities.slots_count,
        server_settings=[
            engine_service_pb2.ServerSetting(name=name, value=value) for name, value in status.server_settings
        ],
        residents=[_resident(resident) for resident in report.residents],
    )


def _resident(resident: EngineResident) -> engine_service_pb2.EngineResident:
    return engine_service_pb2.EngineResident(
        model=resident.model_id,
        context_tokens=resident.context_tokens,
        memory_bytes=resident.memory_bytes,
        accelerator_memory_bytes=resident.accelerator_bytes,
        expiry_time=timestamp(resident.expires_at),
    )


def _finding(finding: Finding) -> engine_service_pb2.Finding:
    return engine_service_pb2.Finding(
        code=finding.code,
        severity=_SEVERITIES[finding.severity],
        subject=finding.subject,
        text=finding.text,
        advice=finding.advice,
    )


def _kebab(name: str) -> str:
    return name.replace("_", "-")
