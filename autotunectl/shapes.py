"""Shapes of loaded models in words. Pure.

``plans``, ``plan``, ``ps`` and the chat's numbers use it. Invariant: what the engine decides for itself and
does not tell is never shown as a fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotunectl.json_output import enum_text
from autotunectl.output import NOTHING, format_count

if TYPE_CHECKING:
    from autotune.v1 import plan_pb2

Part = tuple[bool, str, str]
"""Whether it is known, what it is, and what to call it where it is not."""


def chosen_by(engine: str) -> str:
    """Who decided what is not known."""
    return f"chosen by {engine}" if engine else "chosen by the engine"


def shape_count(shape: plan_pb2.LoadShape, field: str) -> str:
    """One count of a shape for a table."""
    return NOTHING if field in shape.assumed else format_count(getattr(shape, field))


def context_text(shape: plan_pb2.LoadShape, engine: str) -> str:
    """The context, and who shares it."""
    tokens = f"{format_count(shape.context_tokens)} tokens"
    if "context_tokens" in shape.assumed:
        slots = f"{shape.slots_count} {_slots(shape)}"
        return _joined([(False, tokens, "size"), (_is_known(shape, "slots_count"), slots, "slots")], engine)
    if "slots_count" in shape.assumed:
        return f"{tokens}, slots {chosen_by(engine)}"
    if shape.slots_count > 1 and shape.kv_unified:
        return f"{tokens} shared by {shape.slots_count} slots"
    return f"{tokens} in each of {shape.slots_count} {_slots(shape)}"


def context_size(shape: plan_pb2.LoadShape, engine: str) -> str:
    """The context alone, for the line under an answer."""
    if "context_tokens" in shape.assumed:
        return f"context {chosen_by(engine)}"
    return f"context {shape.context_tokens:,} tokens"


def context_phrase(shape: plan_pb2.LoadShape, engine: str) -> str:
    """The context within a sentence."""
    if "context_tokens" in shape.assumed:
        return f"a context {chosen_by(engine)}"
    return f"a context of {format_count(shape.context_tokens)} tokens"


def shape_lines(shape: plan_pb2.LoadShape, engine: str) -> list[tuple[str, str]]:
    """The parts of a shape that are not its size, as names and values."""
    keys, values = (enum_text(shape, name).upper() for name in ("key_cache_type", "value_cache_type"))
    attention = "flash attention" if shape.flash_attention else "no flash attention"
    weights = "mapped from the file" if shape.memory_mapped else "read into memory"
    layers = f"{shape.gpu_layers_count:,} layers offered to the GPU" if shape.gpu_layers_count else ""
    types_are_known = _is_known(shape, "key_cache_type") and _is_known(shape, "value_cache_type")
    return [
        (
            "cache",
            _joined(
                [
                    (types_are_known, f"{keys} keys and {values} values", "types"),
                    (_is_known(shape, "flash_attention"), attention, "flash attention"),
                ],
                engine,
            ),
        ),
        (
            "batches",
            _joined(
                [
                    (_is_known(shape, "batch_tokens"), f"{shape.batch_tokens:,} tokens", "size"),
                    (
                        _is_known(shape, "micro_batch_tokens"),
                        f"{shape.micro_batch_tokens:,} at once",
                        "computations",
                    ),
                ],
                engine,
            ),
        ),
        (
            "weights",
            _joined(
                [
                    (_is_known(shape, "memory_mapped"), weights, "mapping"),
                    (_is_known(shape, "gpu_layers_count"), layers, "layers on the GPU"),
                ],
                engine,
            ),
        ),
    ]


def _is_known(shape: plan_pb2.LoadShape, field: str) -> bool:
    return field not in shape.assumed


def _slots(shape: plan_pb2.LoadShape) -> str:
    return "slot" if shape.slots_count == 1 else "slots"


def _joined(parts: Sequence[Part], engine: str) -> str:
    """What is known of the parts, then the names of the others and who decided them."""
    known = [text for is_known, text, _ in parts if is_known and text]
    unknown = [name for is_known, _, name in parts if not is_known]
    if not unknown:
        return ", ".join(known)
    if len(unknown) == len(parts):
        return chosen_by(engine)
    return ", ".join((*known, f"{' and '.join(unknown)} {chosen_by(engine)}"))
