"""Core to wire: how a download goes."""

from __future__ import annotations

from collections.abc import Callable

from autotune.v1 import model_pb2, model_service_pb2

from autotuned.core.download import DownloadPhase
from autotuned.rpc.plans import reason_messages
from autotuned.rpc.response import duration
from autotuned.services.models import Listing
from autotuned.services.pulls import Offered, Pulled, PullEvent
from autotuned.services.shared_pull import Progressed

_PHASES = {
    DownloadPhase.RESOLVING: model_service_pb2.PULL_PHASE_RESOLVING,
    DownloadPhase.DOWNLOADING: model_service_pb2.PULL_PHASE_DOWNLOADING,
    DownloadPhase.WAITING: model_service_pb2.PULL_PHASE_WAITING,
    DownloadPhase.VERIFYING: model_service_pb2.PULL_PHASE_VERIFYING,
    DownloadPhase.FINISHING: model_service_pb2.PULL_PHASE_FINISHING,
}


def pull_response(
    event: PullEvent, model_of: Callable[[Listing], model_pb2.Model]
) -> model_service_pb2.PullModelResponse:
    """One event of a pull."""
    match event:
        case Offered():
            return model_service_pb2.PullModelResponse(offer=_offer(event))
        case Progressed():
            return model_service_pb2.PullModelResponse(progress=_progress(event))
        case Pulled():
            return model_service_pb2.PullModelResponse(
                pulled=model_service_pb2.PulledModel(
                    model=model_of(event.listing), fetched_bytes=event.fetched_bytes
                )
            )


def _offer(offered: Offered) -> model_service_pb2.PullOffer:
    offer = offered.offer
    return model_service_pb2.PullOffer(
        model=offer.model_id,
        engine=offer.engine,
        source=offered.source,
        quantization=offer.quantization,
        size_bytes=offer.size_bytes,
        missing_bytes=offer.missing_bytes,
        files_count=offer.files_count,
        folder=offer.folder,
        disk_free_bytes=offer.free_bytes,
        reasons=reason_messages(offered.reasons),
    )


def _progress(progressed: Progressed) -> model_service_pb2.PullProgress:
    progress, left = progressed.progress, progressed.left_seconds
    return model_service_pb2.PullProgress(
        phase=_PHASES[progress.phase],
        done_bytes=progress.done_bytes,
        total_bytes=progress.total_bytes,
        bytes_per_second=progressed.bytes_per_second,
        left_duration=None if left is None else duration(left),
        detail=progress.detail,
    )
