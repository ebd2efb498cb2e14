"""Downloads in words: what is offered, how far it has come, what came of it. Pure.

``pull_display`` shows them at a terminal and elsewhere, ``pull`` and the chat's /pull around it.
"""

from __future__ import annotations

from autotune.v1 import model_service_pb2

from autotunectl.output import command_text, format_amount, format_bytes, format_seconds, one_line
from autotunectl.plans import indented, indented_wrapped

_SHORT_SPAN_SECONDS = 60
_PHASES = {
    model_service_pb2.PULL_PHASE_RESOLVING: "asking what there is",
    model_service_pb2.PULL_PHASE_DOWNLOADING: "downloading",
    model_service_pb2.PULL_PHASE_WAITING: "waiting",
    model_service_pb2.PULL_PHASE_VERIFYING: "computing checksums",
    model_service_pb2.PULL_PHASE_FINISHING: "finishing",
}


def offer_text(offer: model_service_pb2.PullOffer) -> str:
    """What would be downloaded; under it how much, where to, and how it will fit. No newline at the end."""
    what = one_line(offer.model)
    if offer.source and f"{offer.source}:latest" != offer.model != offer.source:
        what += f" from {one_line(offer.source)}"
    if offer.engine:
        what += f" for {one_line(offer.engine)}"
    # A folder is never broken, so that it can be copied.
    lines = indented([("size", _size(offer)), *([("to", _place(offer))] if offer.folder else ())])
    reasons = indented_wrapped([("fit", reason.text) for reason in offer.reasons])
    return f"{what}\n{lines}{reasons}".rstrip("\n")


def _size(offer: model_service_pb2.PullOffer) -> str:
    size = format_bytes(offer.size_bytes) if offer.size_bytes else "unknown"
    if offer.quantization:
        size += f" as {offer.quantization}"
    if offer.files_count > 1:
        size += f" in {offer.files_count:,} files"
    if not offer.size_bytes:
        return size
    if not offer.missing_bytes:
        return f"{size}, all of it here already"
    if offer.missing_bytes < offer.size_bytes:
        return f"{size}, {format_bytes(offer.missing_bytes)} of it still to come"
    return size


def _place(offer: model_service_pb2.PullOffer) -> str:
    if not offer.HasField("disk_free_bytes"):
        return offer.folder
    return f"{offer.folder} ({format_amount(offer.disk_free_bytes)} free)"


def phase_text(progress: model_service_pb2.PullProgress) -> str:
    """What is under way, and why it waits."""
    text = _PHASES.get(progress.phase, "under way")
    return f"{text}: {one_line(progress.detail).rstrip('.')}" if progress.detail else text


def phase_line(progress: model_service_pb2.PullProgress) -> str:
    """The same as a line of its own, with how much is to be downloaded."""
    text = phase_text(progress)
    if progress.phase == model_service_pb2.PULL_PHASE_DOWNLOADING and progress.total_bytes:
        text += f" {format_bytes(progress.total_bytes)}"
        if progress.done_bytes:
            text += f", {format_bytes(progress.done_bytes)} of it here"
    return f"{text[:1].upper()}{text[1:]}."


def is_new_step(progress: model_service_pb2.PullProgress, *, offered: bool) -> bool:
    """Whether its phase is worth a line: each file of a model is finished on its own, which nobody needs.

    ``offered``: it is known already what there is.
    """
    is_whole = progress.done_bytes >= progress.total_bytes
    match progress.phase:
        case model_service_pb2.PULL_PHASE_RESOLVING:
            return not offered
        case model_service_pb2.PULL_PHASE_FINISHING:
            return is_whole
        case model_service_pb2.PULL_PHASE_DOWNLOADING:
            return not is_whole or not progress.total_bytes
        case _:
            return True


def numbers_text(progress: model_service_pb2.PullProgress) -> str:
    """Bytes, rate, time left, as far as they are known; "" where nothing is."""
    parts = []
    if progress.total_bytes:
        parts.append(f"{format_amount(progress.done_bytes)} of {format_bytes(progress.total_bytes)}")
    elif progress.done_bytes:
        parts.append(format_bytes(progress.done_bytes))
    if progress.phase == model_service_pb2.PULL_PHASE_DOWNLOADING:
        if progress.bytes_per_second:
            parts.append(f"{format_bytes(progress.bytes_per_second)}/s")
        if progress.HasField("left_duration"):
            parts.append(f"{_whole_seconds(progress.left_duration.seconds)} left")
    return " · ".join(parts)


def _whole_seconds(seconds: int) -> str:
    """A span that is a guess: no fractions, and never nothing."""
    return format_seconds(seconds) if seconds >= _SHORT_SPAN_SECONDS else f"{max(1, seconds)} s"


def share_line(progress: model_service_pb2.PullProgress) -> str:
    """How far it has come, as a line of its own."""
    return f"{share_percent(progress)} %: {numbers_text(progress)}."


def share_percent(progress: model_service_pb2.PullProgress) -> int:
    """How much of it is here, 0 to 100; 0 where the whole is not known."""
    if not progress.total_bytes:
        return 0
    return min(100, progress.done_bytes * 100 // progress.total_bytes)


def pull_command(name: str, engine: str = "", *, yes: bool = False) -> str:
    """The command that downloads it, or goes on with it. ``yes``: also where it does not fit."""
    options = [*(("--engine", engine) if engine else ()), *(("--yes",) if yes else ())]
    return command_text("autotunectl", "pull", name, *options)


def here_text(pulled: model_service_pb2.PulledModel) -> str:
    """That it is here; "was" where nothing had to come."""
    name = one_line(pulled.model.id)
    return f"{name} is here" if pulled.fetched_bytes else f"{name} was here already"


def pulled_line(pulled: model_service_pb2.PulledModel) -> str:
    """The same, and what to do with it."""
    return (
        f"{here_text(pulled)}; talk to it: {command_text('autotunectl', 'chat', '--model', pulled.model.id)}"
    )
