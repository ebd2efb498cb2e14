"""The list of models that can be run, and where. ``ls`` and ``models`` show it.

Invariant: with an engine chosen, every number is that of the model on this engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from autotune.errors import FieldInvalid
from autotune.requests import ModelList
from autotune.v1 import model_pb2

from autotunectl.json_output import enum_text, message_json
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
from autotunectl.plans import fit_name, indented

if TYPE_CHECKING:
    from autotune.client import Client
    from autotune.v1 import engine_service_pb2

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
    Column("RUNS ON"),
)


_DOWNLOADING = ("llamacpp", "mlx", "ollama")
"""The engines that models can be downloaded for."""
_NO_MODEL = 'There is no model; "autotunectl pull" downloads one, or add a .gguf file to the models folder.'


def show_models(session: Session, *, engine: str, verbose: bool) -> None:
    """Lists the models, or those of one engine. Raises AutotuneError."""
    with session.connect() as client:
        listing = client.list_models()
        if engine:
            listing = _on_engine(client, listing, engine)
        why = _why_none(client, engine) if engine and not listing.models else ""
    if session.json:
        models = [message_json(model) for model in listing.models]
        session.write_json({"models": models, "default_model": listing.default_model})
    elif not listing.models:
        session.note(why or _NO_MODEL)
    else:
        session.write(render(listing.models, listing.default_model, verbose=verbose, style=session.out_style))


def render(
    models: Iterable[model_pb2.Model], default_model: str, *, verbose: bool = False, style: Style = PLAIN
) -> str:
    """The table, then what is wrong with the models that cannot be used, then the details."""
    every = list(models)
    broken = [model for model in every if model.problem]
    shown = [*(model for model in every if not model.problem), *broken]
    text = format_table(_COLUMNS, [_row(model, default_model) for model in shown], style)
    if broken:
        text += "\n" + "".join(f"{one_line(model.id)}: {one_line(model.problem)}\n" for model in broken)
    if verbose:
        text += "".join(_details(model) for model in shown)
    return text


def _on_engine(client: Client, listing: ModelList, engine: str) -> ModelList:
    """The models of one engine, as it would run them."""
    models = [
        model if model.engine == engine else client.get_model(place.id, engine)
        for model in listing.models
        for place in model.places
        if place.engine == engine
    ]
    return ModelList(models, listing.default_model)


def _why_none(client: Client, name: str) -> str:
    """Why an engine offers nothing. Raises FieldInvalid where there is no such engine."""
    engines = client.list_engines()
    for engine in engines:
        if engine.name == name:
            why = _not_ready(engine)
            if not why and name in _DOWNLOADING:
                why = f'; "autotunectl pull NAME --engine {name}" downloads one'
            return f"{one_line(name)} offers no model{why}."
    known = ", ".join(engine.name for engine in engines)
    raise FieldInvalid(
        f'--engine: there is no engine "{name}"; use one of: {known}.', metadata={"field": "engine"}
    )


def _not_ready(engine: engine_service_pb2.Engine) -> str:
    state = enum_text(engine, "state").replace("_", " ")
    if state == "ready":
        return ""
    return f": it is {state}" + (f", {one_line(engine.detail)}" if engine.detail else "")


def _row(model: model_pb2.Model, default_model: str) -> tuple[str, ...]:
    return (
        f"{model.id} *" if default_model in _names(model) else model.id,
        format_bytes(model.size_bytes),
        model.architecture or NOTHING,
        model.quantization or NOTHING,
        format_count(model.train_context_tokens),
        format_count(model.fit.safe_context_tokens),
        _fit(model),
        "unusable" if model.problem else enum_text(model, "state"),
        ", ".join(_engines(model)) or NOTHING,
    )


def _fit(model: model_pb2.Model) -> str:
    """A sound model that does not tell how it fits takes no memory of this machine."""
    if model.HasField("fit"):
        return fit_name(model.fit)
    return NOTHING if model.problem else "elsewhere"


def _engines(model: model_pb2.Model) -> list[str]:
    """The engines that can run it, the one that would be taken first."""
    first = [model.engine] if model.engine and not model.problem else []
    able = (place.engine for place in model.places if not place.problem)
    return list(dict.fromkeys((*first, *able)))


def _names(model: model_pb2.Model) -> set[str]:
    """Every name that leads to it."""
    return {model.id, *model.aliases, *(f"{place.engine}/{place.id}" for place in model.places)}


def _details(model: model_pb2.Model) -> str:
    return f"\n{one_line(model.id)}:\n{indented(list(_lines(model)))}"


def _lines(model: model_pb2.Model) -> Iterator[tuple[str, str]]:
    if model.aliases:
        yield "also", ", ".join(model.aliases)
    if model.modalities:
        yield "reads", ", ".join(model.modalities)
    if can := [text for able, text in ((model.calls_tools, "call tools"), (model.thinks, "think")) if able]:
        yield "can", ", ".join(can)
    for place in model.places:
        if place.problem:
            yield "not on", f"{place.engine}: {place.problem}"
            continue
        name = f"{place.engine} as {place.id}" if place.id != model.id else place.engine
        yield "on", f"{name}: {place.path}, {enum_text(place, 'state')}"
