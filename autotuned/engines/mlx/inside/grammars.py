"""Answers that keep a schema: which tokens may come next, by llguidance.

``generation`` asks before each token that is drawn. Invariant: a schema is kept, or refused before
anything is computed.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from autotuned.engines.mlx.inside.problems import Problem, invalid, unsupported
from autotuned.engines.mlx.protocol import GenerateCall

JSON_OBJECT, JSON_SCHEMA = "json_object", "json_schema"
# As models write JSON in one line; free white space lets a small one write nothing else.
_WRITING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_SCHEMA_FIELD = "response_format.schema_json"
_TOOLS_FIELD = "chat.tools"
# mlx_lm's parser of calls that are a JSON object with name and arguments.
_JSON_CALLS = "json_tools"
# Where these are, a schema does not name all properties by itself.
_JOINS = frozenset({"allOf", "anyOf", "oneOf", "if", "then", "else", "not", "$ref"})
_OPENS = _JOINS | {"additionalProperties", "patternProperties", "unevaluatedProperties"}
# Their values are no schemas.
_LITERALS = ("const", "enum", "default", "examples")


class Grammar:
    """The grammar of one reply, at the place that it has reached."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def allowed(self, vocabulary_size: int) -> mx.array:
        """Which tokens may come next, as (1, vocabulary) booleans."""
        import numpy as np  # noqa: PLC0415 - only where there is a grammar

        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed = np.zeros((1, vocabulary_size), np.bool_)
        count = min(vocabulary_size, len(bits))
        allowed[0, :count] = bits[:count]
        return mx.array(allowed)

    def take(self, token: int) -> None:
        """The token that was drawn."""
        if not self._matcher.consume_token(token):
            raise unsupported("the grammar of this answer came to a dead end; use a simpler schema.")

    @property
    def is_over(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())


class Grammars:
    """Makes grammars for one model."""

    def __init__(self, tokenizer: Any, *, longest_reply_bytes: int) -> None:
        self._tokenizer = tokenizer
        self._longest_reply_bytes = longest_reply_bytes
        self._llguidance_tokenizer: Any = None

    def grammar(self, call: GenerateCall) -> Grammar | None:
        """The grammar of a call; None for free text. Raises ``Problem``."""
        if call.form:
            schema = call.schema if call.form == JSON_SCHEMA else '{"type":"object"}'
            return Grammar(self._matcher(self._schema_grammar(schema, _SCHEMA_FIELD), _SCHEMA_FIELD))
        if not call.prompt.tools or not _is_there():
            return None
        for tool in call.prompt.tools:
            parameters = tool["function"]["parameters"]
            self._check(self._schema_grammar(json.dumps(parameters), _TOOLS_FIELD), _TOOLS_FIELD)
        if not call.prompt.must_call:
            return None
        return Grammar(self._matcher(self._call_grammar(call.prompt.tools), _TOOLS_FIELD))

    def _schema_grammar(self, schema: str, field: str) -> str:
        if not _is_there():
            raise unsupported("structured answers need the package llguidance; install it beside mlx-lm.")
        from llguidance import LLMatcher  # noqa: PLC0415 - the package may not be there

        if (least := _least(json.loads(schema))) > self._longest_reply_bytes:
            raise _refused(field, f"it asks for {least:,} of something, more than a reply holds")
        try:
            closed = json.dumps(_closed(json.loads(schema)))
            return str(LLMatcher.grammar_from_json_schema(closed, defaults=_WRITING))
        except ValueError as error:
            raise _refused(field, str(error)) from error

    def _call_grammar(self, tools: Sequence[dict[str, Any]]) -> str:
        """One call of one of the tools, between the marks of the template."""
        parser = self._tokenizer.tool_parser
        if parser is None or not parser.__module__.endswith(_JSON_CALLS):
            raise unsupported(
                "a call of a tool cannot be required of this model; leave the choice to the model."
            )
        from llguidance import LLMatcher  # noqa: PLC0415 - the package may not be there

        calls = [
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool["function"]["name"]},
                    "arguments": {"type": "object", **tool["function"]["parameters"]},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for tool in tools
        ]
        start, end = (
            self._mark(mark, line)
            for mark, line in (
                (self._tokenizer.tool_call_start, "after"),
                (self._tokenizer.tool_call_end, "before"),
            )
        )
        schema = {"x-guidance": _WRITING, **(calls[0] if len(calls) == 1 else {"anyOf": calls})}
        return str(
            LLMatcher.grammar_from_lark(f"start: {start} call {end}\ncall: %json {json.dumps(schema)}")
        )

    def _mark(self, mark: str, line: str) -> str:
        """A mark with its line end: a special token stands for itself, others are text."""
        added = self._tokenizer.added_tokens_decoder.values()
        is_special = any(token.special and str(token) == mark for token in added)
        if not is_special:
            return json.dumps(f"{mark}\n" if line == "after" else f"\n{mark}")
        return f'{mark} "\\n"' if line == "after" else f'"\\n" {mark}'

    def _check(self, grammar: str, field: str) -> None:
        from llguidance import LLMatcher  # noqa: PLC0415 - the package may not be there

        is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar, self._vocabulary())
        if is_error:
            raise _refused(field, " ".join(messages))

    def _matcher(self, grammar: str, field: str) -> Any:
        from llguidance import LLMatcher  # noqa: PLC0415 - the package may not be there

        matcher = LLMatcher(self._vocabulary(), grammar)
        if matcher.is_error():
            raise _refused(field, matcher.get_error())
        return matcher

    def _vocabulary(self) -> Any:
        """The tokenizer as llguidance needs it; making it takes up to a second."""
        if self._llguidance_tokenizer is None:
            from llguidance.hf import from_tokenizer  # noqa: PLC0415 - the package may not be there

            try:
                self._llguidance_tokenizer = from_tokenizer(
                    self._tokenizer._tokenizer,  # noqa: SLF001 - the wrapper hides the one that is needed
                    eos_token=sorted(self._tokenizer.eos_token_ids),
                )
            except ValueError as error:
                raise unsupported(
                    "structured answers are not possible with the tokenizer of this model."
                ) from error
        return self._llguidance_tokenizer


def _is_there() -> bool:
    return importlib.util.find_spec("llguidance") is not None


def _refused(field: str, reason: str) -> Problem:
    text = " ".join(reason.split()).rstrip(".")[:300]
    return invalid(field, f"the engine cannot enforce this schema ({text}); use a simpler one.")


def _closed(schema: Any) -> Any:
    """The schema with no properties but those that it names, where it leaves that open.

    A small model otherwise invents more and more of them. Schemas that are joined stay open: each of
    them names a part of the properties.
    """
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    literal = {name: schema[name] for name in _LITERALS if name in schema}
    closed = {name: value if name in _JOINS else _closed(value) for name, value in schema.items()} | literal
    if isinstance(schema.get("properties"), dict) and not _OPENS & schema.keys():
        closed["additionalProperties"] = False
    return closed


def _least(schema: Any) -> int:
    """The largest least length in a schema: so many characters or items must be there."""
    if isinstance(schema, list):
        return max((_least(each) for each in schema), default=0)
    if not isinstance(schema, dict):
        return 0
    own = [schema[name] for name in ("minLength", "minItems") if isinstance(schema.get(name), int)]
    return max([*own, *(_least(each) for each in schema.values())], default=0)
