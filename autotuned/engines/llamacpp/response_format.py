"""The form of an answer as llama.cpp enforces it, whatever the age of its build.

``body`` asks for every chat. Invariant: a form that a build would leave out without a word is spelled
out or refused here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from autotuned.core.chat import ResponseFormat, ResponseFormatKind
from autotuned.core.errors import FieldInvalid
from autotuned.engines.chat_json import Json, response_format_json

FIELD = "response_format.schema_json"
# Builds that read no schema beside "json_object" let any text through.
ANY_OBJECT: Json = {"type": "json_object", "schema": {"type": "object"}}
# Parts of a schema that hold values, which are no schemas whatever is in them.
_VALUES = frozenset({"const", "default", "enum", "example", "examples"})
# Parts that name schemas: there "enum" is a name like any other.
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


def enforced_format(wanted: ResponseFormat) -> Json:
    """The option that asks for this form; empty for plain text. Raises ``FieldInvalid``."""
    if wanted.kind is ResponseFormatKind.JSON_OBJECT:
        return {"response_format": ANY_OBJECT}
    if wanted.kind is ResponseFormatKind.JSON_SCHEMA:
        _check(wanted.schema_json)
    return response_format_json(wanted)


def _check(schema_json: str) -> None:
    """Refuses what older builds take for a schema that allows everything."""
    try:
        schema = msgspec.json.decode(schema_json)
    except (msgspec.DecodeError, RecursionError):
        return  # the engine says what is wrong with it
    for part in _parts(schema):
        reference = part.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            raise FieldInvalid(
                FIELD, f'the engine cannot enforce a $ref to another document ("{reference}"); copy it in.'
            )
        if part.get("enum") == []:
            raise FieldInvalid(FIELD, "the engine cannot enforce an empty enum; name at least one value.")


def _parts(schema: object) -> Iterator[dict[str, Any]]:
    """Every schema in a schema."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            yield part
            for key, value in part.items():
                if key in _BY_NAME and isinstance(value, dict):
                    waiting += value.values()
                elif key not in _VALUES:
                    waiting.append(value)
