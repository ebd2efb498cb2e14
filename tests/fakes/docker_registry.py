"""A real registry, Debian's package docker-registry, on a loopback port of its own for the time of a test.

``push`` gives it a model of a store in Ollama's layout, as "ollama push" does: each file by its hash, then the
manifest. It goes with the process that started it, however that ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.fakes.ollama.model_store import MODEL_MEDIA_TYPE, blob_path, manifests_folder
from tests.fakes.ollama.names import ModelName, parse_name

PROGRAM = shutil.which("docker-registry")
MISSING = "tests of a real registry (docker-registry is not installed)"

MANIFEST_MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_MEDIA_TYPE = "application/vnd.docker.container.image.v1+json"

_GUARD = Path(__file__).parents[2] / "autotuned" / "engines" / "guard.py"
_CONFIGURATION = """\
version: 0.1
log: {{accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "127.0.0.1:0"}}
"""
_START_SECONDS = 30.0


class DockerRegistry:
    """A registry that listens at ``port``."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def push(self, store: Path, name: str) -> None:
        """Pushes a model of a store."""
        manifest = json.loads((manifests_folder(store) / parse_name(name).path).read_bytes())
        layers = (manifest["config"], *manifest["layers"])
        self._push(name, manifest, {layer["digest"]: blob_path(store, layer["digest"]) for layer in layers})

    def push_file(self, path: Path, name: str) -> None:
        """Pushes a model that is this file and nothing else; it need not be one that runs."""
        with path.open("rb") as file:
            digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        layer = {"mediaType": MODEL_MEDIA_TYPE, "digest": digest, "size": path.stat().st_size}
        # Registries want a configuration; any file of the model will do.
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_MEDIA_TYPE, "layers": [layer]}
        self._push(name, {**manifest, "config": {**layer, "mediaType": CONFIG_MEDIA_TYPE}}, {digest: path})

    def _push(self, name: str, manifest: Mapping[str, object], files: Mapping[str, Path]) -> None:
        parsed = parse_name(name)
        with httpx.Client(base_url=self.url, trust_env=False, timeout=60.0) as client:
            for digest, path in files.items():
                _push_blob(client, parsed, digest, path)
            answer = client.put(
                f"/v2/{parsed.namespace}/{parsed.model}/manifests/{parsed.tag}",
                content=json.dumps(manifest),
                headers={"Content-Type": MANIFEST_MEDIA_TYPE},
            )
        assert answer.status_code == httpx.codes.CREATED, answer.text


def require_docker_registry() -> None:
    """Leaves the test out where the program is missing; the summary of the tests says so."""
    if PROGRAM is None:
        pytest.skip(MISSING)


@contextmanager
def docker_registry(folder: Path) -> Iterator[DockerRegistry]:
    """Runs a registry that keeps its files in ``folder``; only where ``PROGRAM`` is there."""
    assert PROGRAM is not None, MISSING
    configuration, log = folder / "registry.yml", folder / "registry.log"
    configuration.write_text(_CONFIGURATION.format(storage=folder / "storage"))
    guard = [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), str(folder / "no-socket")]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*guard, PROGRAM, "serve", str(configuration)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            yield DockerRegistry(_port(process, log))
        finally:
            process.terminate()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        text = log.read_text()
        if match := re.search(r'listening on [^ "]*:(\d+)"', text):
            return int(match[1])
        assert process.poll() is None, text
        assert time.monotonic() < deadline, text
        time.sleep(0.01)


def _push_blob(client: httpx.Client, name: ModelName, digest: str, path: Path) -> None:
    begun = client.post(f"/v2/{name.namespace}/{name.model}/blobs/uploads/")
    assert begun.status_code == httpx.codes.ACCEPTED, begun.text
    with path.open("rb") as file:
        answer = client.put(
            httpx.URL(begun.headers["Location"]).copy_merge_params({"digest": digest}),
            content=file,
            headers={"Content-Length": str(path.stat().st_size), "Content-Type": "application/octet-stream"},
        )
    assert answer.status_code == httpx.codes.CREATED, answer.text
