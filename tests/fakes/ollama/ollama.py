"""What every endpoint needs: the settings, the store, the runners, and a way to one of them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from tests.fakes.ollama.loaded import Wanted
from tests.fakes.ollama.models import Model, Store
from tests.fakes.ollama.observer import Observer
from tests.fakes.ollama.options import Options, options_from
from tests.fakes.ollama.problems import Problem
from tests.fakes.ollama.pull import Puller
from tests.fakes.ollama.runner import Runner
from tests.fakes.ollama.scheduler import Scheduler
from tests.fakes.ollama.settings import Settings

_MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Ollama:
    """One server."""

    settings: Settings
    store: Store
    scheduler: Scheduler
    observer: Observer
    puller: Puller

    def options(self, model: Model, request: dict[str, Any]) -> Options:
        """All options of a request. Raises ``Problem``."""
        return options_from(
            model.parameters,
            request.get("options"),
            context_length=self.settings.context_length,
            warn=self.observer.warn,
        )

    def runner(
        self, model: Model, request: dict[str, Any], options: Options
    ) -> AbstractAsyncContextManager[Runner]:
        """A runner that fits the request, for as long as it takes."""
        said = set(request.get("options") or {}) | set(model.parameters)
        wanted = Wanted(
            model=model,
            options=options,
            keep_alive_seconds=request.get("keep_alive"),
            context_is_automatic="num_ctx" not in said and not self.settings.context_length,
            batch_is_automatic="num_batch" not in said,
            context_shift=request.get("shift", True),
            parallel=self.settings.parallel,
        )
        return self.scheduler.runner(wanted.bounded())


def check_logprobs(request: dict[str, Any]) -> None:
    """Raises ``Problem`` for a count that there is not."""
    if not 0 <= request.get("top_logprobs", 0) <= _MAX_TOP_LOGPROBS:
        raise Problem("top_logprobs must be between 0 and 20", 400)


def check_thinking(model: Model, request: dict[str, Any]) -> None:
    """Models that think do so unless told otherwise; the others refuse to."""
    if "thinking" in model.capabilities:
        request.setdefault("think", True)
    elif request.get("think"):
        raise Problem(f'"{request["model"]}" does not support thinking', 400)
