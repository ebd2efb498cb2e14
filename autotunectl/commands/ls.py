"""autotunectl ls: the models that can be run."""

from __future__ import annotations

from collections.abc import Iterable

from autotune.v1 import model_pb2

from autotunectl.json_output import enum_text, message_json
from autotunectl.options import verb
from autotunectl.output import (
    NOTHING,
    PLAIN,
    Column,
    Style,
    format_bytes,
    format_count,
    format_table,
    one_line,
)
from autotunectl.plans import fit_name
from autotunectl.session import Session

_COLUMNS = (
    Column("MODEL"),
    Column("SIZE", right=True),
    Column("ARCHITECTURE"),
    Column("QUANTIZATION"),
    Column("CONTEXT", right=True),
    Column("SAFE CONTEXT", right=True),
    Column("FIT"),
    Column("STATE"),
)


@verb("ls")
def command(session: Session) -> None:
    """List the models that can be run.

    CONTEXT is what the model was trained with, SAFE CONTEXT the most of it that memory has room for now,
    both in tokens. FIT says how a first message would fit. The model with a * answers where none is named.
    """
    with session.connect() as client:
        listing = client.list_models()
    if session.json:
        models = [message_json(model) for model in listing.models]
        session.write_json({"models": models, "default_model": listing.default_model})
    elif not listing.models:
        session.note("There is no model; add a .gguf file to the models folder.")
    else:
        session.write(render(listing.models, listing.default_model, session.out_style))


def render(models: Iterable[model_pb2.Model], default_model: str, style: Style = PLAIN) -> str:
    """The table, then what is wrong with the files that cannot be used."""
    sound = [model for model in models if not model.problem]
    broken = [model for model in models if model.problem]
    text = format_table(_COLUMNS, [_row(model, default_model) for model in [*sound, *broken]], style)
    if broken:
        text += "\n" + "".join(f"{one_line(model.id)}: {one_line(model.problem)}\n" for model in broken)
    return text


def _row(model: model_pb2.Model, default_model: str) -> tuple[str, ...]:
    state = enum_text(model, "state")
    return (
        f"{model.id} *" if model.id == default_model else model.id,
        format_bytes(model.size_bytes),
        model.architecture or NOTHING,
        model.quantization or NOTHING,
        format_count(model.train_context_tokens),
        format_count(model.fit.safe_context_tokens),
        fit_name(model.fit) if model.HasField("fit") else NOTHING,
        "unusable" if model.problem else state,
    )
