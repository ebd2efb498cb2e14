"""Tools of a request as the original's types hold them: what the types do not name is lost.

``requests`` reads tools with it. So ``additionalProperties``, ``minimum`` and the like never reach
the model, there as here.
"""

from __future__ import annotations

from typing import Any

from tests.fakes.ollama.problems import Problem

Json = dict[str, Any]
_GO_NAMES = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}


def tool(_name: str, value: Any) -> Json:
    """One tool. Raises ``Problem``."""
    found = _typed(value, dict, "Tools", "api.Tool")
    kept: Json = {"type": _typed(found.get("type") or "", str, "Tool.type", "string")}
    if found.get("items") is not None:
        kept["items"] = found["items"]
    return kept | {
        "function": _function(_typed(found.get("function") or {}, dict, "Tool.function", "api.ToolFunction"))
    }


def _function(value: Json) -> Json:
    kept: Json = {"name": _typed(value.get("name") or "", str, "ToolFunction.name", "string")}
    if description := _typed(value.get("description") or "", str, "ToolFunction.description", "string"):
        kept["description"] = description
    parameters = value.get("parameters") or {}
    name, go_type = "ToolFunction.parameters", "api.ToolFunctionParameters"
    return kept | {"parameters": _parameters(_typed(parameters, dict, name, go_type))}


def _parameters(value: Json) -> Json:
    kept: Json = {"type": _typed(value.get("type") or "", str, "ToolFunctionParameters.type", "string")}
    kept |= {name: value[name] for name in ("$defs", "items") if value.get(name) is not None}
    if value.get("required"):
        kept["required"] = _strings(value["required"], "ToolFunctionParameters.required")
    properties = value.get("properties")
    return kept | {"properties": None if properties is None else _properties(properties)}


def _properties(value: Any) -> Json:
    found = _typed(value, dict, "ToolFunctionParameters.properties", "api.ToolPropertiesMap")
    return {name: _property(each) for name, each in found.items()}


def _property(value: Any) -> Json:
    found = _typed(value, dict, "ToolPropertiesMap", "api.ToolProperty")
    kept: Json = {}
    if found.get("anyOf"):
        kept["anyOf"] = [
            _property(each)
            for each in _typed(found["anyOf"], list, "ToolProperty.anyOf", "[]api.ToolProperty")
        ]
    if found.get("type"):
        kept["type"] = _type(found["type"])
    if found.get("items") is not None:
        kept["items"] = found["items"]
    if found.get("description"):
        kept["description"] = _typed(found["description"], str, "ToolProperty.description", "string")
    if found.get("enum"):
        kept["enum"] = _typed(found["enum"], list, "ToolProperty.enum", "[]interface {}")
    if found.get("properties") is not None:
        kept["properties"] = _properties(found["properties"])
    if found.get("required"):
        kept["required"] = _strings(found["required"], "ToolProperty.required")
    return kept


def _type(value: Any) -> Any:
    """A word, or several; one alone is written as a word."""
    if isinstance(value, str):
        return value
    words = _strings(value, "PropertyType")
    return words[0] if len(words) == 1 else words


def _strings(value: Any, name: str) -> list[str]:
    return [_typed(each, str, name, "string") for each in _typed(value, list, name, "[]string")]


def _typed(value: Any, kind: type, name: str, go_type: str) -> Any:
    if not isinstance(value, kind):
        found = _GO_NAMES[type(value)]
        raise Problem(f"json: cannot unmarshal {found} into Go struct field {name} of type {go_type}", 400)
    return value
