"""Request bodies, checked as strictly as Go's JSON decoder and the types of the original do.

Invariant: what passes has the right types throughout; what does not is a ``Problem`` with status 400
and the original's words.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.ollama.problems import Problem
from tests.fakes.ollama.settings import FOREVER_SECONDS, parse_duration
from tests.fakes.ollama.tools import tool

_Check = Callable[[str, Any], Any]
_EFFORTS = ("high", "medium", "low", "max")
_GO_NAMES = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}


def decode(body: bytes, type_name: str, fields: Mapping[str, _Check]) -> dict[str, Any]:
    """The fields of a body that are known, checked; null is as good as absent. Raises ``Problem``."""
    if not body.strip():
        raise Problem("missing request body", 400)
    try:
        value = json.loads(body)
    except ValueError as error:
        raise Problem(_syntax(body, error), 400) from error
    if not isinstance(value, dict):
        raise Problem(
            f"json: cannot unmarshal {_GO_NAMES[type(value)]} into Go value of type api.{type_name}", 400
        )
    return _fields(value, type_name, fields)


def _fields(value: Mapping[str, Any], type_name: str, fields: Mapping[str, _Check]) -> dict[str, Any]:
    return {
        name: check(f"{type_name}.{name}", value[name])
        for name, check in fields.items()
        if value.get(name) is not None
    }


def _syntax(body: bytes, error: ValueError) -> str:
    position = getattr(error, "pos", 0)
    text = body.decode(errors="replace")
    if position >= len(text.rstrip()):
        return "unexpected EOF"
    return f"invalid character '{text[position]}' looking for beginning of value"


def _typed(kinds: tuple[type, ...], go_type: str) -> _Check:
    def check(name: str, value: Any) -> Any:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            found = _GO_NAMES[type(value)]
            raise Problem(
                f"json: cannot unmarshal {found} into Go struct field {name} of type {go_type}", 400
            )
        return value

    return check


def _anything(_name: str, value: Any) -> Any:
    return value


_string = _typed((str,), "string")
_boolean = _typed((bool,), "bool")
_integer = _typed((int,), "int")
_object = _typed((dict,), "map[string]interface {}")


def _list_of(check: _Check, go_type: str) -> _Check:
    is_list = _typed((list,), go_type)
    return lambda name, value: [check(name, item) for item in is_list(name, value)]


def _record(type_name: str, fields: Mapping[str, _Check]) -> _Check:
    is_record = _typed((dict,), f"api.{type_name}")
    return lambda name, value: _fields(is_record(name, value), type_name, fields)


def keep_alive(_name: str, value: Any) -> float:
    """Seconds. A number is seconds, a string is a Go duration and nothing else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Problem(f"Unsupported type: '{_GO_NAMES[type(value)]}'", 400)
    try:
        seconds = parse_duration(value) if isinstance(value, str) else float(value)
    except ValueError as error:
        raise Problem(str(error), 400) from error
    return FOREVER_SECONDS if seconds < 0 else seconds


def _think(_name: str, value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise Problem(
            'think must be a boolean or string ("high", "medium", "low", "max", true, or false)', 400
        )
    if value not in _EFFORTS:
        raise Problem(
            f'invalid think value: "{value}" (must be "high", "medium", "low", "max", true, or false)', 400
        )
    return value


def _image(name: str, value: Any) -> bytes:
    text = _string(name, value)
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        position = next(
            (i for i, each in enumerate(text) if not (each.isalnum() or each in "+/=")), len(text)
        )
        raise Problem(f"illegal base64 data at input byte {position}", 400) from error


def _arguments(_name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Problem("Value looks like object, but can't find closing '}' symbol", 400)
    return value


def _role(name: str, value: Any) -> str:
    return _string(name, value).lower()


_CALLED = _record("ToolCallFunction", {"index": _integer, "name": _string, "arguments": _arguments})
_MESSAGE = _record(
    "Alias",
    {
        "role": _role,
        "content": _string,
        "thinking": _string,
        "images": _list_of(_image, "[]api.ImageData"),
        "tool_calls": _list_of(_record("ToolCall", {"id": _string, "function": _CALLED}), "[]api.ToolCall"),
        "tool_name": _string,
        "tool_call_id": _string,
    },
)
_COMMON: dict[str, _Check] = {
    "model": _string,
    "stream": _boolean,
    "format": _anything,
    "keep_alive": keep_alive,
    "options": _object,
    "think": _think,
    "truncate": _boolean,
    "shift": _boolean,
    "logprobs": _boolean,
    "top_logprobs": _integer,
    "_debug_render_only": _boolean,
}
CHAT = _COMMON | {
    "messages": _list_of(_MESSAGE, "[]api.Message"),
    "tools": _list_of(tool, "api.Tools"),
}
GENERATE = _COMMON | {
    "prompt": _string,
    "suffix": _string,
    "system": _string,
    "template": _string,
    "context": _list_of(_integer, "[]int"),
    "raw": _boolean,
    "images": _list_of(_image, "[]api.ImageData"),
}
EMBED: dict[str, _Check] = {
    "model": _string,
    "input": _anything,
    "keep_alive": keep_alive,
    "truncate": _boolean,
    "dimensions": _integer,
    "options": _object,
}
SHOW: dict[str, _Check] = {
    "model": _string,
    "name": _string,
    "system": _string,
    "verbose": _boolean,
    "options": _object,
}
NAMED: dict[str, _Check] = {"model": _string, "name": _string, "stream": _boolean, "insecure": _boolean}
