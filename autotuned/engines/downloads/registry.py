"""The source of models in registries that speak Ollama's protocol, which is that of container registries.

``worker`` imports it. A manifest names a model's files by their hashes; they go into ``blobs``, and the
manifest last into ``manifests``: the layout that ``stores.ollama`` and Ollama itself read.
Invariant: a manifest is written when every file that it names is there.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import msgspec

from autotuned.engines.downloads.access import Access, NotThere, nonsense
from autotuned.engines.downloads.disk import free_bytes, require_room
from autotuned.engines.downloads.files import Wanted, fetch_file
from autotuned.engines.downloads.manifest import ACCEPT, Manifest, chosen, files_of, unfit
from autotuned.engines.downloads.part import SUFFIX, part_bytes, sync_folder
from autotuned.engines.downloads.patience import Interrupted, Patience
from autotuned.engines.downloads.protocol import Done, DownloadFailure, Job, Resolved, Step
from autotuned.engines.downloads.source import Tell
from autotuned.engines.plain_hosts import may_be_plain
from autotuned.engines.stores.registry_names import RegistryName, blob_path, registry_name
from autotuned.engines.stores.removal import superseded_deleted
from autotuned.engines.stores.store_lock import store_locked

MOST_CONFIG_BYTES = 1 << 20


class _Config(msgspec.Struct):
    model_format: str = ""
    file_type: str = ""


def resolve(job: Job) -> Download:
    """Asks the registry for the manifest. Raises ``DownloadFailure``."""
    name = registry_name(job.name)
    if name is None:
        raise DownloadFailure(
            "FIELD_INVALID", f'"{job.name}" is no name of a registry; write it as in "qwen3:8b".'
        )
    access = Access(_base_url(name, job), job.insecure_hosts, job.silence_timeout_seconds)
    return _Resolving(job, name, access).run()


def _base_url(name: RegistryName, job: Job) -> str:
    if name.is_public:
        return job.url
    is_plain = may_be_plain(name.host, job.insecure_hosts)
    return f"{'http' if is_plain else 'https'}://{name.host}"


class _Resolving:
    def __init__(self, job: Job, name: RegistryName, access: Access) -> None:
        self._job = job
        self._name = name
        self._access = access
        self._patience = Patience.while_asking(job.patience_seconds, access.host)
        self._root = f"/v2/{name.namespace}/{name.model}"

    def run(self) -> Download:
        text = self._manifest(self._name.tag)
        manifest = self._decoded(text)
        if manifest.manifests:
            text = self._child(manifest.manifests)
            manifest = self._decoded(text)
        model, layers = files_of(manifest, self._name)
        store = Path(self._job.folder)
        files = [self._wanted(store, layer.digest, layer.size) for layer in layers]
        config = self._config(files[0]) if manifest.config and manifest.config.digest else _Config()
        if config.model_format not in {"", "gguf"}:
            raise unfit(self._name, f"it has the format {config.model_format[:40]}")
        return Download(
            job=self._job,
            name=self._name,
            access=self._access,
            manifest=text,
            files=files,
            line=Resolved(
                model_id=self._name.shown,
                engine="llamacpp",
                quantization=config.file_type[:40],
                size_bytes=sum(file.size_bytes for file in files),
                weights_bytes=model.size,
                missing_bytes=_missing_bytes(files),
                files_count=len(files),
                folder=str(store),
                free_bytes=free_bytes(store),
            ),
        )

    def _manifest(self, reference: str) -> bytes:
        try:
            return self._text(f"{self._root}/manifests/{reference}", ACCEPT)
        except NotThere as error:
            raise DownloadFailure(
                "MODEL_NOT_FOUND",
                f'{self._access.host} has no model "{self._name.shown}"; check the name and its tag.',
            ) from error

    def _child(self, children: list[msgspec.Raw]) -> bytes:
        """The text of the manifest in a list; one that is named by its hash has to have it."""
        try:
            child, text = chosen(children, self._name)
        except msgspec.MsgspecError as error:
            raise nonsense(self._access.host, "its manifest is none") from error
        if child.layers or not child.digest:
            return text
        wanted = self._wanted(Path(self._job.folder), child.digest, 0)
        text = self._manifest(child.digest)
        self._require_hash(text, wanted.checksum)
        return text

    def _decoded(self, text: bytes) -> Manifest:
        try:
            return msgspec.json.decode(text, type=Manifest)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise nonsense(self._access.host, "its manifest is none") from error

    def _wanted(self, store: Path, digest: str, size_bytes: int) -> Wanted:
        target = blob_path(store, digest)
        if target is None or size_bytes < 0:
            raise nonsense(self._access.host, "its manifest names a file without a SHA-256 or a size")
        return Wanted(
            target=target, size_bytes=size_bytes, checksum=digest.partition(":")[2], host=self._access.host
        )

    def _config(self, file: Wanted) -> _Config:
        """What the model's configuration says, from the disk where it is there."""
        if file.size_bytes > MOST_CONFIG_BYTES:
            return _Config()
        if file.is_here:
            text = file.target.read_bytes()
        else:
            try:
                text = self._text(f"{self._root}/blobs/sha256:{file.checksum}", "*/*")
            except NotThere as error:
                raise nonsense(self._access.host, "it has not the files that it promises") from error
            self._require_hash(text, file.checksum)
        try:
            return msgspec.json.decode(text, type=_Config)
        except (msgspec.MsgspecError, RecursionError):
            return _Config()

    def _require_hash(self, text: bytes, sha256: str) -> None:
        found = hashlib.sha256(text).hexdigest()
        if found != sha256:
            raise DownloadFailure(
                "DOWNLOAD_CORRUPT",
                f"{self._access.host} promised a file with the SHA-256 {sha256} and sent one with {found}; "
                "pull again later, or from elsewhere.",
            )

    def _text(self, path: str, accept: str) -> bytes:
        while True:
            try:
                return self._access.text(path, accept)
            except Interrupted as interrupted:
                time.sleep(self._patience.pause(interrupted))


class Download:
    """A model that is known to the byte."""

    def __init__(
        self,
        *,
        job: Job,
        name: RegistryName,
        access: Access,
        manifest: bytes,
        files: list[Wanted],
        line: Resolved,
    ) -> None:
        self._job = job
        self._name = name
        self._access = access
        self._manifest = manifest
        self._files = files
        self.line = line

    def fetch(self, tell: Tell) -> Done:
        """Fetches the files that are not here, then writes the manifest."""
        store = Path(self._job.folder)
        require_room(store, _missing_bytes(self._files), self._job.disk_margin_bytes)
        patience = Patience(self._job.patience_seconds, self._access.host)
        fetched_bytes = 0
        while True:
            for file in self._files:
                fetched_bytes += self._fetch_one(file, patience, tell)
            total = self.line.size_bytes
            tell(Step(phase="finishing", done_bytes=total, total_bytes=total))
            with store_locked(store):
                # Another model may have been deleted meanwhile, and a file with it that was here.
                if all(file.is_here for file in self._files):
                    with superseded_deleted(store, self._name):
                        self._write_manifest(store)
                    return Done(fetched_bytes=fetched_bytes)

    def _fetch_one(self, file: Wanted, patience: Patience, tell: Tell) -> int:
        here_bytes = sum(other.size_bytes for other in self._files if other is not file and other.is_here)

        def tell_file(phase: str, done_bytes: int, detail: str) -> None:
            tell(
                Step(
                    phase=phase,
                    done_bytes=here_bytes + done_bytes,
                    total_bytes=self.line.size_bytes,
                    detail=detail,
                )
            )

        patience.progress()
        return fetch_file(file, lambda offset: self._open(file, offset), patience, tell_file)

    def _open(self, file: Wanted, offset: int) -> AbstractContextManager[httpx.Response]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        path = f"/v2/{self._name.namespace}/{self._name.model}/blobs/sha256:{file.checksum}"
        return self._access.blob(path, headers)

    def _write_manifest(self, store: Path) -> None:
        target = self._name.manifest(store)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=SUFFIX, dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._manifest)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).rename(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(target.parent)


def _missing_bytes(files: list[Wanted]) -> int:
    return sum(
        file.size_bytes - min(part_bytes(file.target), file.size_bytes) for file in files if not file.is_here
    )
