"""Request options as Ollama takes them: which there are, their types, and which shape a runner.

Invariant: unknown names are warned of and ignored; a wrong type is refused with the original's
words, and as there with status 500, because it is found when the request is scheduled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tests.fakes.ollama.problems import Problem

_INTEGERS = {
    *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict"),
    *("num_keep", "seed", "num_predict", "top_k", "repeat_last_n"),
}
_FLOATS = {
    *("top_p", "min_p", "typical_p", "temperature"),
    *("repeat_penalty", "presence_penalty", "frequency_penalty"),
}


@dataclass(slots=True)
class RunnerOptions:
    """What a runner is started with; any difference is another runner."""

    num_ctx: int = 4096
    num_batch: int = 512
    num_gpu: int = -1
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int = 0
    draft_num_predict: int = 0


@dataclass(slots=True)
class Options:
    """All options of a request, with Ollama's defaults."""

    runner: RunnerOptions = field(default_factory=RunnerOptions)
    num_keep: int = 4
    seed: int = -1
    num_predict: int = -1
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    temperature: float = 0.8
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: list[str] | None = None


_RUNNER_NAMES = {each.name for each in fields(RunnerOptions)}
_NAMES = _RUNNER_NAMES | {each.name for each in fields(Options)} - {"runner"}


def options_from(
    model: Mapping[str, Any],
    request: Mapping[str, Any] | None,
    *,
    context_length: int,
    warn: Callable[[str], None],
) -> Options:
    """Defaults, then the model's own parameters, then the request's. Raises ``Problem``."""
    options = Options(runner=RunnerOptions(num_ctx=context_length or 4096))
    for source in (model, request or {}):
        for name, value in source.items():
            if name not in _NAMES:
                warn(f"invalid option provided option={name}")
            elif value is not None:
                setattr(options.runner if name in _RUNNER_NAMES else options, name, _typed(name, value))
    return options


def _typed(name: str, value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _INTEGERS:
        if not number:
            raise _wrong(name, "of type integer")
        return int(value)
    if name in _FLOATS:
        if not number:
            raise _wrong(name, "of type float32")
        return float(value)
    if name == "use_mmap":
        if not isinstance(value, bool):
            raise _wrong(name, "of type boolean")
        return value
    if not isinstance(value, list):
        raise _wrong(name, "of type array")
    if not all(isinstance(item, str) for item in value):
        raise _wrong(name, "of an array of strings")
    return value


def _wrong(name: str, kind: str) -> Problem:
    return Problem(f'option "{name}" must be {kind}')
