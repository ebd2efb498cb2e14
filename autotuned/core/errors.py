"""Every error that a client can meet, as one tree.

    AutotuneError
      FieldInvalid         FIELD_INVALID        the request is malformed
      Unsupported          UNSUPPORTED          well formed, but this daemon or engine cannot
      ModelNotFound        MODEL_NOT_FOUND
      ModelInvalid         MODEL_INVALID        the file is damaged or of an unknown kind
      ModelLoadFailed      MODEL_LOAD_FAILED    the engine refused or died while loading
      ContextTooLong       CONTEXT_TOO_LONG     prompt and reply do not fit
      WouldSwap            WOULD_SWAP           the load does not fit into memory
      QueueFull            QUEUE_FULL           too many waiting, or waited too long
      EngineUnreachable    ENGINE_UNREACHABLE   the worker died or hangs
      StorageFull          STORAGE_FULL
      ModelTooLarge        MODEL_TOO_LARGE      a download would not fit into the machine's memory
      SourceUnreachable    SOURCE_UNREACHABLE   where a model comes from does not answer, or not sensibly
      SourceDenied         SOURCE_DENIED        it wants a token, or somebody's consent
      DownloadCorrupt      DOWNLOAD_CORRUPT     what came is not what was promised
      ShuttingDown         SHUTTING_DOWN

Raised anywhere below ``rpc``; ``rpc.errors`` turns them into a gRPC status in one place.
Invariant: the message is one sentence that says what failed and what to do; everything in it that
a program may want is also in ``metadata``.
"""

from __future__ import annotations

from typing import ClassVar


class AutotuneError(Exception):
    """Base of all errors with a reason. ``metadata`` keys are lowerCamelCase, values are text."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, **metadata: str | int) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}


class FieldInvalid(AutotuneError):
    """A field of the request is missing or out of range."""

    reason = "FIELD_INVALID"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", field=field)
        self.field = field


class Unsupported(AutotuneError):
    """The request is well formed, but this daemon or this engine cannot carry it out."""

    reason = "UNSUPPORTED"


class ModelNotFound(AutotuneError):
    """No model has this id. ``suggestion`` is the nearest id, or "".

    ``engine`` is the one that was asked for, ``away`` names engines that may have it and do not answer;
    ``advice`` is for who has no suggestion.
    """

    reason = "MODEL_NOT_FOUND"

    def __init__(
        self, model: str, suggestion: str, *, engine: str = "", away: str = "", advice: str = ""
    ) -> None:
        missing, listing = f'There is no model "{model}"', '"autotunectl ls" lists the models.'
        if engine:
            missing = f'The engine {engine} has no model "{model}"'
            listing = f'"autotunectl ls --engine {engine}" lists its models.'
        hints = [f'did you mean "{suggestion}"?' if suggestion else advice]
        if away:
            silence = "they do not answer" if " and " in away else "it does not answer"
            hints.append(f"Models of {away} are missing, because {silence}.")
        elif not engine and not hints[0]:
            hints.append(f'"autotunectl pull {model}" downloads one of this name, if there is one.')
        hint = " ".join(filter(None, (*hints, listing)))
        super().__init__(f"{missing}; {hint[:1].lower()}{hint[1:]}", model=model, suggestion=suggestion)

    @classmethod
    def elsewhere(cls, model: str, message: str) -> ModelNotFound:
        """A source that was asked for a model has none of this name; the message says which source."""
        error = cls(model, "")
        error.message, error.args = message, (message,)
        return error


class ModelInvalid(AutotuneError):
    """A model file is damaged or of a kind that no engine here runs."""

    reason = "MODEL_INVALID"


class ModelLoadFailed(AutotuneError):
    """The engine refused the model, or its worker died while loading."""

    reason = "MODEL_LOAD_FAILED"


class ContextTooLong(AutotuneError):
    """Prompt and reply do not fit into the context that failed.

    Engines raise it for the loaded context, with their exact count; the planner for the largest
    context that the model can have. ``prompt_tokens`` is exact or, with ``at_least``, a lower bound.
    ``possible_context_tokens`` is set where the client's own context was the limit and the model could
    have this one, which would hold the prompt.
    """

    reason = "CONTEXT_TOO_LONG"

    def __init__(
        self,
        *,
        prompt_tokens: int,
        context_tokens: int,
        at_least: bool = False,
        possible_context_tokens: int = 0,
    ) -> None:
        count = f"at least {prompt_tokens:,}" if at_least else f"{prompt_tokens:,}"
        if possible_context_tokens:
            fact = f"the context that the request sets holds {context_tokens:,}"
            advice = (
                f"leave context_tokens out or raise it above {prompt_tokens:,}, "
                f"up to {possible_context_tokens:,}"
            )
        else:
            fact = f"the context holds {context_tokens:,}"
            advice = (
                f"shorten it to fewer than {context_tokens:,} tokens or use a model with a longer context"
            )
        super().__init__(
            f"The prompt has {count} tokens and {fact}; {advice}.",
            promptTokens=prompt_tokens,
            contextTokens=context_tokens,
        )
        self.prompt_tokens = prompt_tokens
        self.context_tokens = context_tokens


class WouldSwap(AutotuneError):
    """The load does not fit into memory. ``fitting_context_tokens`` is the context that would; 0: none."""

    reason = "WOULD_SWAP"

    def __init__(
        self, message: str, *, required_bytes: int, available_bytes: int, fitting_context_tokens: int
    ) -> None:
        super().__init__(
            message,
            requiredBytes=required_bytes,
            availableBytes=available_bytes,
            fittingContextTokens=fitting_context_tokens,
        )
        self.required_bytes = required_bytes
        self.available_bytes = available_bytes
        self.fitting_context_tokens = fitting_context_tokens

    def with_hint(self, sentence: str) -> WouldSwap:
        """The same refusal with one more sentence."""
        return WouldSwap(
            f"{self.message} {sentence}",
            required_bytes=self.required_bytes,
            available_bytes=self.available_bytes,
            fitting_context_tokens=self.fitting_context_tokens,
        )


class QueueFull(AutotuneError):
    """Too many requests wait, or this one waited too long. ``retry_seconds`` is when to try again."""

    reason = "QUEUE_FULL"

    def __init__(self, message: str, *, retry_seconds: float, **metadata: str | int) -> None:
        super().__init__(message, **metadata)
        self.retry_seconds = retry_seconds


class EngineUnreachable(AutotuneError):
    """The engine's process died, hangs, or broke off its answer. The next request gets a fresh one.

    ``served`` is False where the process was found dead: it never took the request.
    """

    reason = "ENGINE_UNREACHABLE"
    served = True


class StorageFull(AutotuneError):
    """The disk is full."""

    reason = "STORAGE_FULL"


class ModelTooLarge(AutotuneError):
    """A model that was asked for would not fit into this machine. Asking again with consent downloads it."""

    reason = "MODEL_TOO_LARGE"

    def __init__(self, message: str, *, required_bytes: int, capacity_bytes: int, suggestion: str) -> None:
        super().__init__(
            message, requiredBytes=required_bytes, capacityBytes=capacity_bytes, suggestion=suggestion
        )


class SourceUnreachable(AutotuneError):
    """A registry or hub does not answer, is busy, or answers what makes no sense; what came stays here."""

    reason = "SOURCE_UNREACHABLE"


class SourceDenied(AutotuneError):
    """A registry or hub gives the model to some only: a token or an agreement is missing."""

    reason = "SOURCE_DENIED"


class DownloadCorrupt(AutotuneError):
    """What was downloaded does not have the checksum or the size that was promised; it was removed."""

    reason = "DOWNLOAD_CORRUPT"


class ShuttingDown(AutotuneError):
    """The daemon stops and takes no new work."""

    reason = "SHUTTING_DOWN"

    def __init__(self) -> None:
        super().__init__("The daemon is shutting down; run the command again to start a new one.")
