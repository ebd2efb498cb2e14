"""The daemon's side of downloads: a worker process for each.

``daemon`` makes one; ``services`` use it through the port ``Downloader``. Invariant: nothing of a download is
imported before there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autotuned.core.download import Reference, Source
from autotuned.core.settings import PullSettings

if TYPE_CHECKING:
    from autotuned.engines.downloads.protocol import Job
    from autotuned.engines.downloads.worker_process import WorkerDownload


class WorkerDownloader:
    """Downloads in worker processes.

    ``registry_store`` and ``hub_cache`` are where models go; ``environment`` is what the workers get, tokens
    and proxies included; ``runs_mlx`` says whether an engine here runs MLX repositories.
    """

    def __init__(
        self,
        *,
        settings: PullSettings,
        registry_store: Path,
        hub_cache: Path,
        runs_mlx: bool,
        environment: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._registry_store = registry_store
        self._hub_cache = hub_cache
        self._runs_mlx = runs_mlx
        self._environment = dict(environment)

    async def find(self, reference: Reference) -> WorkerDownload:
        """Asks the source what there is, as the port says."""
        # With the first download: until then a daemon has no use for the words of workers.
        from autotuned.engines.downloads import worker_process  # noqa: PLC0415 - said above

        worker = worker_process.DownloadWorker(reference.text, self._job(reference), self._environment)
        try:
            await worker.start()
            return worker_process.WorkerDownload(worker, await worker.resolved())
        except BaseException:
            await worker.close()
            raise

    def _job(self, reference: Reference) -> Job:
        from autotuned.engines.downloads.protocol import Job  # noqa: PLC0415 - as above

        settings = self._settings
        is_hub = reference.source is Source.HUGGING_FACE
        return Job(
            source=reference.source.value,
            name=reference.name,
            quantization=reference.quantization,
            url=settings.huggingface_url if is_hub else settings.registry_url,
            folder=str(self._hub_cache if is_hub else self._registry_store),
            disk_margin_bytes=settings.disk_margin_mib << 20,
            silence_timeout_seconds=settings.silence_timeout_seconds,
            patience_seconds=settings.patience_seconds,
            insecure_hosts=settings.insecure_hosts,
            runs_mlx=self._runs_mlx,
        )
