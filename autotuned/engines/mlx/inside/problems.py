"""What a request fails of, as the worker tells it. Raised anywhere in the worker, sent by ``server``."""

from __future__ import annotations

from autotuned.engines.mlx import protocol


class Problem(Exception):
    """A refusal. ``kind`` is one of the types in ``protocol``; ``field`` names what is to be mended."""

    def __init__(
        self, kind: str, text: str, *, field: str = "", prompt_tokens: int = 0, context_tokens: int = 0
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.field = field
        self.prompt_tokens = prompt_tokens
        self.context_tokens = context_tokens

    def body(self) -> dict[str, object]:
        """The JSON that ``chat_events.problem_in`` reads."""
        problem = {
            "message": self.text,
            "type": f"{self.kind}:{self.field}",
            "n_prompt_tokens": self.prompt_tokens,
            "n_ctx": self.context_tokens,
        }
        return {"error": problem}


def invalid(field: str, text: str) -> Problem:
    """A field that the client has to mend."""
    return Problem(protocol.FIELD_INVALID, text, field=field)


def unsupported(text: str) -> Problem:
    """Something that this worker or its model cannot do."""
    return Problem(protocol.UNSUPPORTED, text)
