"""autotunectl engines: which engines run models, how each stands and what it can do."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping

import click
from autotune.v1 import engine_service_pb2, model_pb2

from autotunectl.engine_details import details_text, state_text
from autotunectl.json_output import message_json
from autotunectl.options import verb
from autotunectl.output import NOTHING, PLAIN, Column, Style, format_table, one_line
from autotunectl.session import Session

_COLUMNS = (
    Column("ENGINE"),
    Column("STATE"),
    Column("VERSION"),
    Column("ADDRESS"),
    Column("COMPUTES ON"),
    Column("MODELS", right=True),
    Column("LOADED", right=True),
)
_IN_MEMORY = frozenset({model_pb2.MODEL_STATE_READY, model_pb2.MODEL_STATE_DRAINING})


@verb("engines")
@click.option(
    "-v", "--verbose", is_flag=True, help="Also show what each can and cannot do, and its settings."
)
def command(session: Session, verbose: bool) -> None:
    """List the engines that run models, and what each can do.

    They come in the order in which they are taken where nothing else decides. MODELS is how many an engine
    could run now, LOADED how many of them are in memory, whoever loaded them.
    """
    with session.connect() as client:
        engines = client.list_engines()
        running = [] if session.json else client.list_running_models()
    if session.json:
        session.write_json({"engines": [message_json(engine) for engine in engines]})
        return
    loaded = Counter(model.engine for model in running if model.state in _IN_MEMORY)
    session.write(render(engines, loaded, time.time(), verbose=verbose, style=session.out_style))


def render(
    engines: Iterable[engine_service_pb2.Engine],
    loaded: Mapping[str, int],
    now: float,
    *,
    verbose: bool,
    style: Style = PLAIN,
) -> str:
    """The table, then why engines are not ready. ``loaded``: models in memory, by engine."""
    every = list(engines)
    text = format_table(_COLUMNS, [_row(engine, loaded.get(engine.name, 0)) for engine in every], style)
    if why := [_why(engine) for engine in every if engine.detail]:
        text += "\n" + "".join(why)
    if verbose:
        text += "".join(details_text(engine, now) for engine in every)
    return text


def _row(engine: engine_service_pb2.Engine, loaded_count: int) -> tuple[str, ...]:
    return (
        engine.name,
        state_text(engine),
        engine.version or NOTHING,
        engine.address or NOTHING,
        engine.accelerator or NOTHING,
        str(engine.models_count),
        str(loaded_count),
    )


def _why(engine: engine_service_pb2.Engine) -> str:
    detail = one_line(engine.detail).rstrip(".")
    return f"{one_line(engine.name)} is {state_text(engine)}: {detail}.\n"
