"""Where the stores of other programs lie, from the settings, the environment and the home of the user.

``daemon`` calls ``store_folders`` once at its start and hands the result to the engines. Each program's
own rules decide, in the program's own order. Invariant: it never raises; a folder that is named here
need not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from autotuned.core.settings import StoreSettings
from autotuned.engines.stores.files import read_text

AUTO = "auto"
OFF = "off"

# Where the packages of several systems let Ollama's service keep its models.
OLLAMA_SERVICE_FOLDERS = (
    Path("/usr/share/ollama/.ollama/models"),
    Path("/var/lib/ollama/.ollama/models"),
    Path("/var/lib/ollama/models"),
    Path("/var/lib/ollama"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFolders:
    """The folders to look at: those with ``manifests`` and ``blobs``, with publishers, with repositories."""

    ollama: tuple[Path, ...] = ()
    lmstudio: Path | None = None
    huggingface: Path | None = None


NO_STORES = StoreFolders()


def store_folders(settings: StoreSettings, environment: Mapping[str, str], home: Path) -> StoreFolders:
    """The folders that the settings mean. Reads two small files of LM Studio at most."""
    return StoreFolders(
        ollama=_ollama(settings.ollama, environment, home),
        lmstudio=_lmstudio_models(home) if settings.lmstudio == AUTO else _named(settings.lmstudio, home),
        huggingface=hub_cache(environment, home)
        if settings.huggingface == AUTO
        else _named(settings.huggingface, home),
    )


def _named(setting: str, home: Path) -> Path | None:
    return None if setting in {OFF, ""} else _path(setting, home)


def _path(text: str, home: Path) -> Path:
    """A path as a user writes it: "~" is the home, a relative one starts at the working folder."""
    if text == "~" or text.startswith("~/"):
        return home / text[2:]
    try:
        return Path(text).absolute()
    except OSError:  # the working folder is gone
        return home / text


def _ollama(setting: str, environment: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    if setting != AUTO:
        folder = _named(setting, home)
        return () if folder is None else (folder,)
    if named := environment.get("OLLAMA_MODELS"):
        return (_path(named, home),)
    return (home / ".ollama" / "models", *OLLAMA_SERVICE_FOLDERS)


def hub_cache(environment: Mapping[str, str], home: Path) -> Path:
    """The cache that the Hugging Face libraries share."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := environment.get(variable):
            return _path(named, home)
    if named := environment.get("HF_HOME"):
        return _path(named, home) / "hub"
    caches = _path(environment.get("XDG_CACHE_HOME") or "~/.cache", home)
    return caches / "huggingface" / "hub"


def _lmstudio_models(home: Path) -> Path:
    """The folder of LM Studio's settings, which may lie on another disk, else the one in its home."""
    own = _lmstudio_home(home)
    try:
        settings = msgspec.json.decode(read_text(own / "settings.json", _nobody) or b"null")
    except (ValueError, RecursionError):
        settings = None
    folder = settings.get("downloadsFolder") if isinstance(settings, dict) else None
    if isinstance(folder, str) and folder and "\0" not in folder:
        return _path(folder, home)
    return own / "models"


def _lmstudio_home(home: Path) -> Path:
    """What its pointer names, else the folder of old versions where it exists, else that of new ones."""
    pointer = (read_text(home / ".lmstudio-home-pointer", _nobody) or b"").decode(errors="replace").strip()
    if pointer and "\0" not in pointer:
        return _path(pointer, home)
    old = home / ".cache" / "lm-studio"
    return old if old.is_dir() else home / ".lmstudio"


def _nobody(_path: Path | str, _reason: str) -> None:
    """A missing or unreadable file of LM Studio means its defaults."""
