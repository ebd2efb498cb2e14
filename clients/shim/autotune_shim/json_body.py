"""JSON bodies into structs, with every defect as a ``RequestInvalid`` that names its place.

Used by all dialects. Invariant: JSON that is to travel byte for byte is declared as ``msgspec.Raw``
and leaves through ``json_text``; it is never decoded and encoded again.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from autotune_shim.exchange import RequestInvalid

_Body = TypeVar("_Body")

_PLACE = re.compile(r"^(?P<problem>.*?)(?: - at (?:`key` in )?`\$\.?(?P<path>.*)`)?$", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_HALF_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


def decode_body(decoder: msgspec.json.Decoder[_Body], body: bytes) -> _Body:
    """The body as the decoder's type. Raises RequestInvalid."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None
    except UnicodeDecodeError:
        raise RequestInvalid("The body is not valid UTF-8.", code="invalid_encoding") from None
    except RecursionError:
        raise RequestInvalid("The body is nested too deeply.", code="invalid_json") from None
    except msgspec.DecodeError as error:
        if _HALF_SURROGATE.search(body):
            raise RequestInvalid(
                "The body holds a lone surrogate (half of a pair of \\u escapes), which is no character.",
                code="invalid_encoding",
            ) from None
        raise RequestInvalid(f"The body is not valid JSON: {error}.", code="invalid_json") from None


def json_text(raw: msgspec.Raw, field: str) -> str:
    """The text of a JSON value, byte for byte; "" where it is absent or null. Raises RequestInvalid."""
    try:
        text = bytes(raw).decode()
    except UnicodeDecodeError:
        raise RequestInvalid(
            f"{field}: the text is not valid UTF-8.", field=field, code="invalid_encoding"
        ) from None
    return "" if text == "null" else text


def _misfit(error: str) -> RequestInvalid:
    """A msgspec message such as "Expected `str`, got `int` - at `$.messages[0].role`", for the caller."""
    found = _PLACE.match(error)
    problem, path = (found["problem"], found["path"] or "") if found else (error, "")
    unknown = _UNKNOWN_FIELD.match(problem)
    if unknown:
        path = f"{path}.{unknown['name']}" if path else unknown["name"]
        return RequestInvalid(f"{path}: this field is not known here.", field=path, code="unknown_parameter")
    if problem.startswith("Object missing required field "):
        name = problem.removeprefix("Object missing required field ").strip("`")
        path = f"{path}.{name}" if path else name
        return RequestInvalid(
            f"{path}: this field is required.", field=path, code="missing_required_parameter"
        )
    problem = problem[:1].lower() + problem[1:]
    return RequestInvalid(f"{path or 'body'}: {problem}.", field=path)
