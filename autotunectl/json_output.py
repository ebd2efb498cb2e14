"""Turns wire messages into JSON with stable names: what ``--json`` prints.

Invariant: keys are the field names of the proto with their unit, ``*_duration`` becomes seconds
(``*_seconds``), ``*_time`` an RFC 3339 text, an enum its value in lower case without prefix; a field
that may be absent is null then; a map is an object, its keys in order.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.message import Message

if TYPE_CHECKING:
    from autotune.chat import Reply


def dump(value: object) -> str:
    """One line of JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def message_json(message: Message) -> dict[str, Any]:
    """Any message of ``autotune.v1``. Of a oneof only the member that is set is there."""
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1 and not message.HasField(field.name):
            continue
        key, value = field.name, getattr(message, field.name)
        if key.endswith("_duration"):
            key = key.removesuffix("_duration") + "_seconds"
        absent = field.has_presence and not message.HasField(field.name)
        if (of_value := _map_value(field)) is not None:
            result[key] = {str(name): _value_json(of_value, value[name]) for name in sorted(value)}
        elif field.is_repeated:
            result[key] = [_value_json(field, item) for item in value]
        else:
            result[key] = None if absent else _value_json(field, value)
    return result


def event_json(response: Message) -> dict[str, Any]:
    """One message of a stream whose only field is the oneof "event": which it is, and what it says."""
    event = response.WhichOneof("event") or ""
    return {"event": event, **message_json(getattr(response, event))} if event else {}


def reply_json(reply: Reply) -> dict[str, Any]:
    """A whole answer. Cached tokens are null where the engine does not tell them."""
    return {
        "text": reply.text,
        "reasoning": reply.reasoning,
        "tool_calls": [
            {"id": call.id, "name": call.name, "arguments_json": call.arguments_json}
            for call in reply.tool_calls
        ],
        "finish_reason": reply.finish_reason,
        "model": reply.model,
        "engine": reply.engine,
        "request_id": reply.request_id,
        "usage": {**message_json(reply.usage), "cached_tokens": reply.cached_tokens},
        "timings": message_json(reply.timings),
        "plan": message_json(reply.plan),
    }


def enum_text(message: Message, field_name: str) -> str:
    """For example "ready" for MODEL_STATE_READY; the number as text for a value of a newer daemon."""
    return _enum_text(message.DESCRIPTOR.fields_by_name[field_name].enum_type, getattr(message, field_name))


def _map_value(field: Any) -> Any:
    """The field that the values of a map are; None where ``field`` is no map."""
    entry = field.message_type
    return entry.fields_by_name["value"] if entry is not None and entry.GetOptions().map_entry else None


def _value_json(field: Any, value: Any) -> Any:
    if isinstance(value, duration_pb2.Duration):
        return value.seconds + value.nanos / 1e9
    if isinstance(value, timestamp_pb2.Timestamp):
        return value.ToJsonString()
    if isinstance(value, Message):
        return message_json(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if field.enum_type is not None:
        return _enum_text(field.enum_type, value)
    return value


def _enum_text(enum_type: Any, number: int) -> str:
    known = enum_type.values_by_number
    if number not in known:
        return str(number)
    # buf's rule: values are prefixed with the enum's name, which ends the name of value 0.
    prefix = known[0].name.removesuffix("UNSPECIFIED")
    name: str = known[number].name
    return name.removeprefix(prefix).lower()
