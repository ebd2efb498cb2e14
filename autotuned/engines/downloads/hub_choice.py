"""Which GGUF files of a Hugging Face repository make the model that was asked for. Pure functions.

``huggingface`` gives the list of files. Projectors are left out: the engine that runs the models reads text.
Invariant: all parts of a split file or none; only names that stay in the repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autotuned.engines.downloads.protocol import DownloadFailure

# What weighs least for what it keeps comes first: the 4 bits that nearly everybody takes, more, fewer.
USUAL_ORDER = (
    *("Q4_K_M", "MXFP4", "Q4_K_XL", "Q4_K_S", "Q4_0", "IQ4_XS", "IQ4_NL", "Q4_K_L", "Q4_K", "Q4_1", "NVFP4"),
    *("Q5_K_M", "Q5_K_XL", "Q5_K_S", "Q5_K_L", "Q5_K", "Q5_0", "Q5_1"),
    *("Q6_K", "Q6_K_XL", "Q6_K_L", "Q8_0", "Q8_K_XL"),
    *("Q3_K_M", "Q3_K_XL", "Q3_K_L", "IQ3_M", "Q3_K_S", "IQ3_S", "Q3_K", "IQ3_XS", "IQ3_XXS"),
    *("Q2_K", "Q2_K_XL", "Q2_K_L", "IQ2_M", "IQ2_S", "Q2_K_S", "IQ2_XS", "IQ2_XXS"),
)
# Weights that nobody has quantized: larger than most want, so they are the last choice.
UNQUANTIZED = ("BF16", "F16", "FP16", "F32", "FP32")

_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>(?!0{5})\d{5})")
_QUANTIZATION = re.compile(
    r"(?<![A-Z0-9])(?:UD-)?"
    r"(?:I?Q[1-9](?:_[A-Z0-9]+)*|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|F16|FP16|F32|FP32)"
    r"(?![A-Z0-9])"
)
# No models by themselves: projectors, and what has no weights, which no quantization is written on.
_PROJECTOR = re.compile(r"(?<![a-z0-9])mmproj(?![a-z0-9])")
_WITHOUT_WEIGHTS = re.compile(r"(?<![a-z0-9])(?:imatrix|vocab)(?![a-z0-9])")
_WEIGHTS = (".gguf", ".safetensors")
_MAX_LISTED = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file of a repository.

    ``blob_name`` is what the cache calls its content: the SHA-256 that is promised for a large file, the
    object name that Git has for a small one; in hexadecimal digits.
    """

    path: str
    size_bytes: int
    blob_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The files to have. ``stem`` names a GGUF model; "" for an MLX one, which the repository names."""

    engine: str
    stem: str
    quantization: str
    files: tuple[HubFile, ...]

    @property
    def weights_bytes(self) -> int:
        """The files that hold weights."""
        return sum(file.size_bytes for file in self.files if file.path.lower().endswith(_WEIGHTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """The GGUF files of one model; more than one where it is split."""

    stem: str
    quantization: str
    files: tuple[HubFile, ...]

    @property
    def depth(self) -> int:
        return self.files[0].path.count("/")

    @property
    def plain_quantization(self) -> str:
        """Without what only says how the types of its tensors were mixed."""
        return self.quantization.removeprefix("UD-").removesuffix("_MOE")

    def is_called(self, name: str) -> bool:
        """Whether the name of a file, with or without folder, ending and part, means this one."""
        names = {self.stem.lower()}
        for file in self.files:
            path = file.path.lower()
            for full in (path, path.rpartition("/")[2]):
                names |= {full, full.removesuffix(".gguf")}
        return name.lower() in names


def is_within(path: str) -> bool:
    """Whether a path that a hub names stays inside the repository."""
    return bool(path) and not {"\\", "\0"} & set(path) and not {"", ".", ".."} & set(path.split("/"))


def has_gguf(files: Iterable[HubFile]) -> bool:
    """Whether there is a GGUF file, be it a model or not."""
    return any(file.path.lower().endswith(".gguf") for file in files)


def choose_gguf(name: str, files: Sequence[HubFile], quantization: str) -> Choice:
    """The model of the repository that has the quantization, or that is called so; "" takes the usual one.

    Raises:
        DownloadFailure: FIELD_INVALID where there is none, or more than one; UNSUPPORTED where no file of
            the repository is a whole model.
    """
    models = _models(files)
    if not models:
        raise DownloadFailure(
            "UNSUPPORTED",
            f'The GGUF files of "{name}" are no models, but projectors, vocabularies, or parts of some; '
            "choose another repository.",
        )
    model = _named(name, models, quantization) if quantization else _usual(name, models)
    return Choice(engine="llamacpp", stem=model.stem, quantization=model.quantization, files=model.files)


def _models(files: Iterable[HubFile]) -> list[_Model]:
    """The whole models among the files, in the order of their names."""
    parts: dict[tuple[str, str, int], dict[int, HubFile]] = {}
    for file in sorted(files, key=lambda file: file.path):
        folder, _, base = file.path.rpartition("/")
        stem = base[: -len(".gguf")]
        if not base.lower().endswith(".gguf") or _is_besides(stem):
            continue
        part = _PART.fullmatch(stem)
        if part is None:
            parts[folder, stem, 1] = {1: file}
        else:
            parts.setdefault((folder, part["stem"], int(part["parts"])), {})[int(part["part"])] = file
    return [
        _Model(
            stem=stem,
            quantization=_quantization(stem) or _quantization(folder),
            files=tuple(found[number] for number in sorted(found)),
        )
        for (folder, stem, count), found in parts.items()
        if sorted(found) == list(range(1, count + 1))
    ]


def _is_besides(stem: str) -> bool:
    if _PROJECTOR.search(stem.lower()):
        return True
    return bool(_WITHOUT_WEIGHTS.search(stem.lower())) and not _quantization(stem)


def _quantization(text: str) -> str:
    """The last quantization that a name carries, in capitals; "" where it has none."""
    found = _QUANTIZATION.findall(text.upper())
    return found[-1] if found else ""


def _named(name: str, models: Sequence[_Model], quantization: str) -> _Model:
    wanted = quantization.upper()
    for matches in (
        [model for model in models if model.is_called(quantization)],
        [model for model in models if model.quantization == wanted],
        [model for model in models if model.plain_quantization == wanted],
    ):
        if matches:
            return _only(name, matches)
    raise DownloadFailure(
        "FIELD_INVALID",
        f'"{name}" has no file with the quantization "{quantization}"; it has {_listed(models)}.',
    )


def _usual(name: str, models: Sequence[_Model]) -> _Model:
    first = min(_rank(model) for model in models)
    return _only(name, [model for model in models if _rank(model) == first])


def _rank(model: _Model) -> tuple[int, str]:
    plain = model.plain_quantization
    if plain in USUAL_ORDER:
        return 2 * USUAL_ORDER.index(plain) + (plain != model.quantization), ""
    if plain in UNQUANTIZED:
        return 1000 + UNQUANTIZED.index(plain), ""
    # What this list does not know, more bits first.
    return 500 - int(next(filter(str.isdigit, plain), "0")), plain


def _only(name: str, models: Sequence[_Model]) -> _Model:
    """The one that lies highest up, where that is one."""
    highest = min(model.depth for model in models)
    found = [model for model in models if model.depth == highest]
    if len(found) == 1:
        return found[0]
    paths = [model.files[0].path for model in found]
    raise DownloadFailure(
        "FIELD_INVALID",
        f'"{name}" has several models: {_joined(sorted(paths))}; name one, as in "hf:{name}:{paths[0]}".',
    )


def _listed(models: Sequence[_Model]) -> str:
    return _joined([model.quantization or model.stem for model in sorted(models, key=_rank)])


def _joined(names: Iterable[str]) -> str:
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - _MAX_LISTED} more" if len(unique) > _MAX_LISTED else ""
    return ", ".join(unique[:_MAX_LISTED]) + more
