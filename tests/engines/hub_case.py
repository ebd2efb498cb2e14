"""What tests of downloads from Hugging Face share: a hub, a cache, and a downloader between them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from huggingface_hub import constants, hf_hub_download

from autotuned.core.download import Downloaded, DownloadProgress, Reference, Source
from autotuned.core.model import ModelEntry
from autotuned.core.settings import PullSettings
from autotuned.engines.downloads.downloader import WorkerDownloader
from autotuned.engines.downloads.worker_process import WorkerDownload
from autotuned.engines.llamacpp.discovery import ModelFiles
from autotuned.engines.stores.folders import StoreFolders
from tests.engines.mlx_paths import POCKET as POCKET_HF
from tests.fakes.hub import FakeHub

POCKET = Path(__file__).parents[2] / "autotuned" / "data" / "pocket.gguf"
EXAMPLE = "someone/Example-GGUF"
MLX = "mlx-community/Pocket-bf16"


@dataclass(slots=True)
class Case:
    """A hub, and a folder for everything that is written."""

    hub: FakeHub
    folder: Path
    settings: dict[str, object] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    runs_mlx: bool = True
    steps: list[DownloadProgress] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.folder / "hub"

    @property
    def downloader(self) -> WorkerDownloader:
        settings = {"huggingface_url": self.hub.url, "disk_margin_mib": 0, "patience_seconds": 20.0}
        return WorkerDownloader(
            settings=PullSettings(**(settings | self.settings)),
            registry_store=self.folder / "registry",
            hub_cache=self.cache,
            runs_mlx=self.runs_mlx,
            environment={"HOME": str(self.folder), "PATH": os.environ["PATH"], **self.environment},
        )

    async def find(self, text: str) -> WorkerDownload:
        """Of "publisher/repository", with or without ":quantization"."""
        name, _, quantization = text.partition(":")
        return await self.downloader.find(
            Reference(source=Source.HUGGING_FACE, name=name, quantization=quantization)
        )

    async def pull(self, text: str) -> Downloaded:
        """Whole, with its steps in ``steps``."""
        download = await self.find(text)
        return await download.fetch(self.steps.append)

    def fetch_by_library(self, name: str, file: str) -> None:
        """The library's own download into the same cache, as other programs do it."""
        with patch.object(constants, "HF_HUB_DISABLE_TELEMETRY", new=True):
            hf_hub_download(name, file, cache_dir=self.cache, endpoint=self.hub.url, token=False)

    def blobs(self, name: str = EXAMPLE) -> dict[str, bytes]:
        """What lies in the cache of a repository, complete or not."""
        folder = self.cache / f"models--{name.replace('/', '--')}" / "blobs"
        return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}

    def listed(self) -> list[ModelEntry]:
        """What the llama.cpp engine lists of the cache."""
        files = ModelFiles(
            engine="llamacpp",
            models_folder=self.folder / "models",
            files=(),
            stores=StoreFolders(huggingface=self.cache),
        )
        return [entry for entry in files.scan() if entry.path != str(POCKET)]


def pocket_mlx() -> dict[str, bytes]:
    """The pocket model in the layout of Hugging Face, as one that was converted for MLX."""
    return {path.name: path.read_bytes() for path in sorted(POCKET_HF.iterdir())}
