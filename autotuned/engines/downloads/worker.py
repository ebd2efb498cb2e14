"""The worker: one download, from the question what there is to the last byte.

    python -I -B worker.py '{"source": ..., "name": ..., ...}'

``downloader`` starts it; nothing imports it. Its argument is the JSON of ``protocol.Job``; what it writes to
standard output are the lines of ``protocol``, and to standard error what belongs into a log.
Invariant: it ends when its standard input ends, whatever it is doing.
"""

import os
import queue
import sys
import threading
import time
import traceback
from pathlib import Path

if __name__ == "__main__":  # isolated, a program has no folder of its own on its path
    sys.path.append(str(Path(__file__).parents[3]))

import msgspec

from autotuned.core.download import Source
from autotuned.engines.downloads.disk import DISK_FULL
from autotuned.engines.downloads.protocol import Done, DownloadFailure, Failed, Job, Line, Step
from autotuned.engines.downloads.source import Found

STEP_SECONDS = 0.1


def main() -> None:
    """Resolves, waits for consent, fetches; the last line says what came of it."""
    # What it creates is its owner's alone, as everything that the daemon writes.
    os.umask(0o077)
    consent: queue.SimpleQueue[None] = queue.SimpleQueue()
    threading.Thread(target=_end_with_input, args=[consent], daemon=True).start()
    job = msgspec.json.decode(sys.argv[1], type=Job)
    try:
        found = _resolve(job)
        _write(found.line)
        consent.get()
        _write(found.fetch(_Steps()))
    except DownloadFailure as failure:
        _write(failure.failed)
    except OSError as error:
        if error.strerror is None:
            raise
        traceback.print_exc()
        _write(_refused(job, error))


def _refused(job: Job, error: OSError) -> Failed:
    """The disk did not do what was asked of it."""
    if error.errno in DISK_FULL:
        message = f"The disk of {job.folder} is full; make room and pull again: what came is kept."
    else:
        message = (
            f"{error.filename or job.folder} cannot be written: {error.strerror}; look after this folder and "
            "its disk, then pull again: what came is kept."
        )
    return Failed(reason="STORAGE_FULL", message=message)


def _resolve(job: Job) -> Found:
    """Only the source that is asked is imported: each brings libraries of its own."""
    if job.source == Source.HUGGING_FACE.value:
        from autotuned.engines.downloads import huggingface  # noqa: PLC0415 - said above

        return huggingface.resolve(job)
    from autotuned.engines.downloads import registry  # noqa: PLC0415 - said above

    return registry.resolve(job)


class _Steps:
    """Writes steps: every change of phase at once, others as often as somebody can look at them."""

    def __init__(self) -> None:
        self._phase = ""
        self._due = 0.0

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        is_whole = step.done_bytes == step.total_bytes
        if step.phase == self._phase and not is_whole and now < self._due:
            return
        self._phase, self._due = step.phase, now + STEP_SECONDS
        _write(step)


def _end_with_input(consent: "queue.SimpleQueue[None]") -> None:
    """The first line is the consent; the end is the end."""
    while data := os.read(0, 512):
        if b"\n" in data:
            consent.put(None)
    os._exit(0)


def _write(line: Line | Done) -> None:
    """One line, whole: whoever reads it may be gone."""
    content = memoryview(msgspec.json.encode(line) + b"\n")
    try:
        while content:
            content = content[os.write(1, content) :]
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
