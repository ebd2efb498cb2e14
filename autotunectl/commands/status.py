"""autotunectl status: the daemon and the machine. Starts no daemon, and says so when none runs."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from autotune.errors import DaemonNotRunning
from autotune.v1 import daemon_service_pb2, system_service_pb2
from autotune.version import version_mismatch

from autotunectl import exits
from autotunectl.json_output import enum_text, message_json
from autotunectl.options import verb
from autotunectl.output import format_bytes, format_fields, format_seconds
from autotunectl.session import CLIENT_NAME, Session


@verb("status")
def command(session: Session) -> int:
    """Show the daemon and the machine.

    Exit status 3 when no daemon is running.
    """
    with session.client() as client:
        try:
            info = client.info()
        except DaemonNotRunning:
            return _not_running(session, client.address)
        snapshot = client.snapshot()
        address = client.address
    if session.json:
        session.write_json(
            {
                "daemon_running": True,
                "address": address,
                "daemon": {**message_json(info), "log_file": _log_file(info)},
                "snapshot": message_json(snapshot),
            }
        )
    else:
        session.write(render(info, snapshot, address, _log_file(info), time.time()))
        if warning := version_mismatch(info.version, CLIENT_NAME):
            session.note(warning.message)
    return exits.DONE


def _not_running(session: Session, address: str) -> int:
    if session.json:
        session.write_json({"daemon_running": False, "address": address, "daemon": None, "snapshot": None})
    else:
        session.write(f'No daemon is running at {address}; "autotunectl chat" starts one.\n')
    return exits.UNREACHABLE


def _log_file(info: daemon_service_pb2.GetInfoResponse) -> str:
    """Where the daemon logs; "" for a standard error that is no file. Linux tells which file it is."""
    if info.log_file:
        return info.log_file
    with contextlib.suppress(OSError):
        target = Path(f"/proc/{info.process_id}/fd/2").readlink()
        if target.is_file():
            return str(target)
    return ""


def render(
    info: daemon_service_pb2.GetInfoResponse,
    snapshot: system_service_pb2.Snapshot,
    address: str,
    log_file: str,
    now: float,
) -> str:
    """Names and values. ``now``: seconds since the epoch."""
    models = ", ".join(model.id for model in snapshot.running_models) or "none"
    requests = f"{snapshot.active_requests_count} running, {snapshot.queued_requests_count} waiting"
    return format_fields(
        (
            ("Daemon", f"autotuned {info.version}, process {info.process_id}"),
            ("Up for", format_seconds(max(0.0, now - info.start_time.seconds))),
            ("Serves", address),
            ("Engines", ", ".join(f"{engine.name} {engine.version}".strip() for engine in info.engines)),
            ("Models", models),
            ("Requests", requests),
            ("Memory", _memory(snapshot)),
            ("Pressure", _pressure(snapshot)),
            ("Swap", _swap(snapshot)),
            ("Prefixes", _prefixes(snapshot)),
            ("CPU", f"{snapshot.cpu_used_ratio:.0%} of {snapshot.cpu_cores_count} cores"),
            ("Data", info.data_directory),
            ("Runtime", info.runtime_directory),
            ("Log", log_file or "standard error of the daemon"),
        )
    )


def _memory(snapshot: system_service_pb2.Snapshot) -> str:
    used_bytes = snapshot.memory_total_bytes - snapshot.memory_available_bytes
    total = format_bytes(snapshot.memory_total_bytes)
    own = format_bytes(snapshot.daemon_resident_memory_bytes)
    limit = " (the container's limit)" if snapshot.HasField("memory_limit_bytes") else ""
    return f"{format_bytes(used_bytes)} of {total}{limit} used, the daemon {own}"


def _pressure(snapshot: system_service_pb2.Snapshot) -> str:
    tier = enum_text(snapshot, "pressure_tier")
    if not snapshot.HasField("memory_stalled_ratio"):
        return tier
    return f"{tier}; programs waited for memory {snapshot.memory_stalled_ratio:.1%} of the last 10 s"


def _prefixes(snapshot: system_service_pb2.Snapshot) -> str:
    count = snapshot.saved_prefixes_count
    return (
        f"{count:,} saved, {format_bytes(snapshot.saved_prefixes_bytes)} on disk" if count else "none saved"
    )


def _swap(snapshot: system_service_pb2.Snapshot) -> str:
    if not snapshot.swap_total_bytes:
        return "none"
    used = format_bytes(snapshot.swap_used_bytes) if snapshot.swap_used_bytes else "0 B"
    return f"{used} of {format_bytes(snapshot.swap_total_bytes)} used"
