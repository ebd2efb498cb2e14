"""A ``llama-server`` program: its build, what it computes with, and the options that it knows.

``builds`` examines each program once, as long as its file does not change.
Invariants: nothing but the program itself says what it can do; a program that does not end, or writes
without end, is ended; no variable of the user's environment changes what it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotuned.engines.llamacpp.command_line import command_line, log_level_in, missing_options

# The program sets options that are not in its command line from variables that begin so.
OPTION_VARIABLES = "LLAMA_"
# A GPU's driver may take seconds to start.
PROBE_SECONDS = 20.0
MOST_OUTPUT_BYTES = 1 << 20
MIB_BYTES = 1 << 20

_VERSION = re.compile(r"^version: (?P<version>\S.*?)\s*$", re.MULTILINE)
# A line of the list is, for example, "  CUDA0: NVIDIA H100 (81559 MiB, 80000 MiB free)".
_DEVICE = re.compile(
    r"^\s+(?P<name>[\w.-]+): (?P<description>.+) \((?P<mib>\d+) MiB, \d+ MiB free\)\s*$", re.MULTILINE
)
# Devices that lend the CPU a hand, and those on other machines.
_NO_GPU = re.compile("BLAS|RPC|CPU")
# "-kvu,  --kv-unified, -no-kvu, --no-kv-unified" and what follows: an argument, or the description.
_OPTION = re.compile(r"^(?P<names>-{1,2}[\w.-]+(?:,\s+-{1,2}[\w.-]+)*)(?P<rest>.*)$", re.MULTILINE)
_LIBRARY = re.compile(r"^lib(llama|ggml|mtmd).*\.(so|dylib)")


class BinaryUnusable(Exception):
    """Why a program cannot run models, as a clause that begins with its path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Something beside the CPU that it computes with. ``memory_bytes`` 0: it has none of its own."""

    name: str
    description: str
    memory_bytes: int

    @property
    def is_gpu(self) -> bool:
        """Whether layers can be put there."""
        return self.memory_bytes > 0 and not _NO_GPU.match(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBinary:
    """An examined program. ``options``: each by name, with what its help says right after the names.

    ``digest`` is over its content and over the state of the libraries that came with it; ``log_level`` the
    verbosity that shows the buffers of a load.
    """

    path: Path
    version: str
    digest: str
    devices: tuple[Device, ...]
    options: Mapping[str, str]
    log_level: str

    def command(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """What runs it with these ``shape.worker_settings``."""
        return (str(self.path), *command_line(self.options, settings, log_level=self.log_level))

    @property
    def identity(self) -> str:
        """Its version and, because builds of one version differ, the beginning of its digest."""
        return f"llama-server {self.version} sha256:{self.digest[:16]}"

    @property
    def accelerator(self) -> str:
        """What computes, for example "CUDA0: NVIDIA H100" or "CPU"."""
        gpus = [f"{device.name}: {device.description}" for device in self.devices if device.is_gpu]
        return ", ".join(gpus) or "CPU"

    @property
    def has_gpu(self) -> bool:
        """Whether it can put layers anywhere but into memory."""
        return any(device.is_gpu for device in self.devices)


async def examine(path: Path) -> ServerBinary:
    """Asks a program what it is. Raises ``BinaryUnusable``."""
    version = _VERSION.search(await _answer(path, "--version"))
    if version is None:
        raise BinaryUnusable(f"{path} is not a llama-server")
    help_text = await _answer(path, "--help")
    options = options_in(help_text)
    if missing := missing_options(options):
        raise BinaryUnusable(f"{path} is too old: it does not know {', '.join(missing)}")
    devices = await _answer(path, "--list-devices")
    try:
        digest = await asyncio.to_thread(digest_of, path)
    except OSError as error:
        raise BinaryUnusable(f"{path} cannot be read ({error.strerror})") from error
    return ServerBinary(
        path=path,
        version=version["version"],
        digest=digest,
        devices=devices_in(devices),
        options=options,
        log_level=log_level_in(help_text),
    )


def devices_in(text: str) -> tuple[Device, ...]:
    """The devices of the program's list."""
    return tuple(
        Device(
            name=match["name"], description=match["description"], memory_bytes=int(match["mib"]) * MIB_BYTES
        )
        for match in _DEVICE.finditer(text)
    )


def options_in(help_text: str) -> dict[str, str]:
    """The options of the program's help, each with the text that follows its names in that line."""
    return {
        name.strip(): match["rest"].strip()
        for match in _OPTION.finditer(help_text)
        for name in match["names"].split(",")
    }


def digest_of(path: Path) -> str:
    """SHA-256 in hexadecimal. Blocks; raises ``OSError``.

    A program may be a few bytes around its libraries, and those of a GPU are large: of them name, length
    and time of change count.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    folder = path.resolve().parent
    for libraries in (folder, folder.parent / "lib"):
        if libraries.is_dir():
            for library in sorted(entry for entry in libraries.iterdir() if _LIBRARY.match(entry.name)):
                state = library.stat()
                digest.update(f"\0{library.name}\0{state.st_size}\0{state.st_mtime_ns}".encode())
    return digest.hexdigest()


def clean_environment() -> dict[str, str]:
    """The daemon's environment without what would set options."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OPTION_VARIABLES)}


async def _answer(path: Path, option: str) -> str:
    """What the program writes when it is asked for this alone. Raises ``BinaryUnusable``."""
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            option,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            env=clean_environment(),
        )
    except OSError as error:
        raise BinaryUnusable(f"{path} cannot be started ({error.strerror})") from error
    is_whole = False
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            output = await _read(process)
            status = await process.wait()
        is_whole = True
    except TimeoutError as error:
        raise BinaryUnusable(f"{path} did not answer {option} within {PROBE_SECONDS:g} seconds") from error
    finally:
        if not is_whole:
            # All of its session: whatever it started holds the pipe, even where itself is gone.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status:
        words = output.strip().splitlines()
        said = f' and "{words[-1].strip()[:200]}"' if words else ""
        raise BinaryUnusable(f"{path} {option} ended with status {status}{said}")
    return output


async def _read(process: asyncio.subprocess.Process) -> str:
    """Everything up to the end of the output, or to a length that no answer has."""
    assert process.stdout is not None  # noqa: S101 - it was made with a pipe
    pieces: list[bytes] = []
    while piece := await process.stdout.read(1 << 16):
        pieces.append(piece)
        if sum(map(len, pieces)) > MOST_OUTPUT_BYTES:
            raise TimeoutError
    return b"".join(pieces).decode(errors="replace")
