"""The source of models of Hugging Face's hub, which go into the cache that its libraries share.

``worker`` imports it. The library tells what a repository has and keeps the user's token; the bytes come by
``files``, as those of registries do.
Invariant: all files are of the commit that ``resolve`` saw, and the model appears when all are verified.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from autotuned.core.download import DownloadPhase
from autotuned.engines.downloads.access import certificate_problem, require_no_page, require_safe
from autotuned.engines.downloads.disk import free_bytes, require_room
from autotuned.engines.downloads.files import LOCK_PAUSE_SECONDS, fetch_file
from autotuned.engines.downloads.hub_cache import HubCache
from autotuned.engines.downloads.hub_choice import Choice, HubFile, choose_gguf, has_gguf, is_within
from autotuned.engines.downloads.hub_mlx import choose_mlx, may_be_mlx, raise_plain_weights
from autotuned.engines.downloads.hub_refusals import connection_problem, refusal
from autotuned.engines.downloads.patience import Interrupted, Patience
from autotuned.engines.downloads.protocol import Done, DownloadFailure, Job, Resolved, Step
from autotuned.engines.downloads.source import Tell
from autotuned.engines.llamacpp.discovery import POCKET, split_parts
from autotuned.engines.stores.files import Notes
from autotuned.engines.stores.huggingface import gguf_files
from autotuned.engines.stores.store_lock import store_locked

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

    from autotuned.engines.downloads.hub_access import Hub

_MAX_CONFIGURATION_BYTES = 1 << 20
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"(?:[\w-][\w.-]*/)?[\w-][\w.-]*", re.ASCII)
_BLOB_NAME = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# Read when the library is imported, which is why that is late.
_LIBRARY_SETTINGS = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

Result = TypeVar("Result")


def resolve(job: Job) -> HubDownload:
    """What the hub has under the name. Raises ``DownloadFailure``."""
    os.environ.update(_LIBRARY_SETTINGS)
    from huggingface_hub import constants  # noqa: PLC0415 - said above

    from autotuned.engines.downloads.hub_access import Hub  # noqa: PLC0415 - it imports the library

    endpoint = (job.url or constants.ENDPOINT).rstrip("/")
    host = _safe_host(endpoint, job.insecure_hosts)
    patience = Patience.while_asking(job.patience_seconds, host)
    info = _until_it_works(patience, lambda: _ask(job, endpoint, host))
    name, commit, files = _listed(info, job.name, host)
    hub = Hub(
        endpoint,
        name,
        commit,
        timeout_seconds=job.silence_timeout_seconds,
        insecure_hosts=job.insecure_hosts,
    )
    choice = _choice(job, name, files, lambda file: _until_it_works(patience, lambda: _read(hub, file)))
    if info.gated:
        _until_it_works(patience, lambda: hub.require_given(choice.files[0]))
    cache = HubCache(Path(job.folder), name, commit, use_links=not constants.HF_HUB_DISABLE_SYMLINKS)
    return HubDownload(job, hub, cache, choice, files)


class HubDownload:
    """A model that can be fetched. ``line`` is what it would take."""

    def __init__(
        self, job: Job, hub: Hub, cache: HubCache, choice: Choice, repository: Sequence[HubFile]
    ) -> None:
        self._job = job
        self._hub = hub
        self._cache = cache
        self._files = choice.files
        self._repository = repository
        folder = Path(job.folder)
        self.line = Resolved(
            model_id=_model_id(choice, hub.name, folder),
            engine=choice.engine,
            quantization=choice.quantization,
            size_bytes=sum(file.size_bytes for file in choice.files),
            weights_bytes=choice.weights_bytes,
            missing_bytes=cache.missing_bytes(choice.files),
            files_count=len(choice.files),
            folder=job.folder,
            free_bytes=free_bytes(folder),
        )

    def fetch(self, tell: Tell) -> Done:
        """Fetches and verifies the files that are not here, then makes the snapshot. Blocks.

        Raises ``DownloadFailure``, or ``OSError`` where the disk refuses.
        """
        missing_bytes = self._cache.missing_bytes(self._files)
        require_room(Path(self._job.folder), missing_bytes, self._job.disk_margin_bytes)
        with self._cache.in_use():
            return self._fetch_all(tell)

    def _fetch_all(self, tell: Tell) -> Done:
        patience = Patience(self._job.patience_seconds, self._hub.host)
        fetched_bytes, total = 0, self.line.size_bytes
        while True:
            fetched_bytes += sum(self._fetch_one(file, patience, tell) for file in self._files)
            tell(Step(phase=DownloadPhase.FINISHING.value, done_bytes=total, total_bytes=total))
            with store_locked(self._cache.locks):
                # Another model may have been deleted meanwhile, and a file with it that was here.
                if all(map(self._cache.is_here, self._files)):
                    self._cache.finish(self._files, self._repository)
                    return Done(fetched_bytes=fetched_bytes)

    def _fetch_one(self, file: HubFile, patience: Patience, tell: Tell) -> int:
        here_bytes = sum(
            other.size_bytes for other in self._files if other is not file and self._cache.is_here(other)
        )

        def tell_file(phase: str, done_bytes: int, detail: str) -> None:
            done_bytes += here_bytes
            tell(Step(phase=phase, done_bytes=done_bytes, total_bytes=self.line.size_bytes, detail=detail))

        patience.progress()
        wanted = self._cache.wanted(file, self._hub.host)
        while not self._cache.is_here(file):
            with self._cache.lock(file) as is_ours:
                if is_ours:
                    count = fetch_file(wanted, partial(self._hub.open, file), patience, tell_file)
                    self._cache.share(file)
                    return count
            came_bytes = file.size_bytes - self._cache.missing_bytes([file])
            tell_file(DownloadPhase.WAITING.value, came_bytes, "another program downloads the same file")
            time.sleep(LOCK_PAUSE_SECONDS)
        return 0


def _safe_host(endpoint: str, insecure_hosts: tuple[str, ...]) -> str:
    try:
        url = httpx.URL(endpoint)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in {"http", "https"} or not url.host:
        raise _unusable(endpoint, "it is no address")
    require_safe(url, insecure_hosts)
    return url.netloc.decode()


def _ask(job: Job, endpoint: str, host: str) -> ModelInfo:
    """The repository's newest commit of "main" and its files."""
    import httpx2  # noqa: PLC0415 - in the worker alone
    from huggingface_hub import HfApi  # noqa: PLC0415 - the same
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415 - the same

    api = HfApi(endpoint=endpoint, library_name="autotuned")
    try:
        return api.model_info(job.name, files_metadata=True, timeout=job.silence_timeout_seconds)
    except HFValidationError as error:
        raise DownloadFailure(
            "FIELD_INVALID", f'"{job.name}" is no name of a repository; write hf:publisher/repository.'
        ) from error
    except HfHubHTTPError as error:
        raise refusal(error.response.status_code, error.response.headers, job.name, endpoint) from error
    except httpx2.HTTPError as error:
        raise Interrupted(connection_problem(error, host)) from error
    except ConnectionError as error:
        raise DownloadFailure(
            "SOURCE_UNREACHABLE",
            "The libraries of Hugging Face are told to stay offline; unset HF_HUB_OFFLINE and "
            "TRANSFORMERS_OFFLINE in the environment of the daemon.",
        ) from error
    except OSError as error:
        if error.filename:
            raise
        raise certificate_problem(error) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unusable(
            endpoint, "its answer is no list of files; look whether this network wants a login"
        ) from error


def _listed(info: ModelInfo, asked: str, host: str) -> tuple[str, str, tuple[HubFile, ...]]:
    """Name as the hub writes it, commit, and files but those with an impossible name or no checksum."""
    name, commit = str(info.id), str(info.sha)
    if not _NAME.fullmatch(name) or "--" in name or not _COMMIT.fullmatch(commit):
        raise _unusable(host, f'it tells neither name nor commit of "{asked}"')
    files = []
    for sibling in info.siblings or ():
        blob_name = (sibling.lfs.sha256 if sibling.lfs else sibling.blob_id) or ""
        size_bytes = sibling.lfs.size if sibling.lfs else sibling.size
        if is_within(sibling.rfilename) and _BLOB_NAME.fullmatch(blob_name) and size_bytes is not None:
            files.append(HubFile(path=sibling.rfilename, size_bytes=size_bytes, blob_name=blob_name))
    return name, commit, tuple(files)


def _read(hub: Hub, file: HubFile) -> bytes:
    """A small file."""
    with hub.open(file, 0) as response:
        require_no_page(response, hub.host)
        return response.read()


def _choice(job: Job, name: str, files: Sequence[HubFile], read: Callable[[HubFile], bytes]) -> Choice:
    if has_gguf(files):
        return choose_gguf(name, files, job.quantization)
    if not may_be_mlx(files):
        raise_plain_weights(name)
    configuration = next(file for file in files if file.path == "config.json")
    choice = choose_mlx(name, files, _decoded(configuration, read), job.quantization)
    if not job.runs_mlx:
        raise DownloadFailure(
            "UNSUPPORTED",
            f'"{name}" is for MLX, which does not run here; install it with "pip install \'autotuned[mlx]\'" '
            "and restart the daemon, or take a repository with GGUF files.",
        )
    return choice


def _decoded(file: HubFile, read: Callable[[HubFile], bytes]) -> Mapping[str, Any]:
    if file.size_bytes > _MAX_CONFIGURATION_BYTES:
        return {}
    try:
        values = json.loads(read(file))
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _model_id(choice: Choice, name: str, cache: Path) -> str:
    """What the model list will call it, as far as the cache tells.

    A GGUF model is called by its stem, and "publisher/repository/stem" where an earlier one has that name:
    the packaged model, or one of a repository that comes before this one. Files in the models folder, of
    Ollama and of LM Studio come earlier, too; who knows them corrects this.
    """
    if not choice.stem:
        return name
    if choice.stem == POCKET.stem:
        return f"{name}/{choice.stem}"
    folder = "--".join(("models", *name.split("/")))
    for stored in gguf_files(cache, Notes()):
        split = split_parts(stored.path)
        earlier = "--".join(("models", *stored.folder.split("/"))) < folder
        if split is not None and split[0] == choice.stem and earlier:
            return f"{name}/{choice.stem}"
    return choice.stem


def _until_it_works(patience: Patience, attempt: Callable[[], Result]) -> Result:
    while True:
        try:
            return attempt()
        except Interrupted as interruption:
            time.sleep(patience.pause(interruption))


def _unusable(endpoint: str, reason: str) -> DownloadFailure:
    return DownloadFailure(
        "SOURCE_UNREACHABLE",
        f'"{endpoint}" does not answer like a hub: {reason}; check pull.huggingface_url and HF_ENDPOINT.',
    )
