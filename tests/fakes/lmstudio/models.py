"""The models on disk: publisher/repository/file.gguf, as in ``~/.lmstudio/models``."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotuned.engines.gguf import read_header

POCKET_GGUF = Path(__file__).parents[3] / "autotuned" / "data" / "pocket.gguf"
PUBLISHER = "autotune"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model that can be loaded."""

    key: str
    publisher: str
    path: Path
    architecture: str
    quantization: str
    parameters_count: int
    max_context_tokens: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size

    @property
    def bits_per_weight(self) -> int:
        """As the name of the quantization says it."""
        digits = "".join(filter(str.isdigit, self.quantization.split("_", maxsplit=1)[0]))
        return int(digits)

    @property
    def display_name(self) -> str:
        """For people."""
        return self.key.replace("-", " ").title()

    @property
    def params_string(self) -> str:
        """The number of parameters for people, such as "7B" or "2M"."""
        millions = self.parameters_count / 1e6
        return f"{millions / 1000:.3g}B" if millions >= 1000 else f"{millions:.0f}M"


def make_models_folder(folder: Path, keys: Sequence[str] = ("pocket",)) -> Path:
    """Puts the pocket model under each key into a models folder of LM Studio's layout."""
    for key in keys:
        repository = folder / PUBLISHER / f"{key}-GGUF"
        repository.mkdir(parents=True)
        shutil.copyfile(POCKET_GGUF, repository / f"{key}-Q8_0.gguf")
    return folder


def find_models(folder: Path) -> dict[str, ModelFile]:
    """The models of the folder by their keys, read again at every call."""
    found = {}
    for path in sorted(folder.glob("*/*/*.gguf")):
        header = read_header(path)
        architecture = str(header.values["general.architecture"])
        key = path.parent.name.removesuffix("-GGUF").lower()
        found[key] = ModelFile(
            key=key,
            publisher=path.parents[1].name,
            path=path,
            architecture=architecture,
            quantization=path.stem.rpartition("-")[2],
            parameters_count=header.parameters_count,
            max_context_tokens=int(header.values[f"{architecture}.context_length"]),  # type: ignore[arg-type]
        )
    return found
