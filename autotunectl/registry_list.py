"""The list of models that there are to download. ``models --registry`` shows it.

Invariant: a figure that the registry does not tell is a dash, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from autotunectl.json_output import message_json
from autotunectl.output import (
    NOTHING,
    PLAIN,
    Column,
    Style,
    format_bytes,
    format_parameters,
    format_table,
    one_line,
    shortened,
)
from autotunectl.plans import indented_wrapped

if TYPE_CHECKING:
    from autotune.registry import RegistryList
    from autotune.v1 import registry_service_pb2

    from autotunectl.session import Session

_COLUMNS = (
    Column("MODEL"),
    Column("PARAMETERS", right=True),
    Column("SIZE", right=True),
    Column("SCORE", right=True),
    Column("LICENSE"),
)
_LICENSE_COLUMNS = 19
"""As much of it as leaves a line within a terminal; the details have all of it."""
_PLACES = ("ollama", "huggingface", "mlx")
"""In the order in which a pull would take them."""
_HUB_PLACES = frozenset({"huggingface", "mlx"})


def show_registry(session: Session, *, verbose: bool) -> None:
    """Lists the models, and what is wrong with the user's own file. Raises AutotuneError."""
    with session.connect() as client:
        listing = client.list_registry_models()
    if session.json:
        session.write_json(
            {
                "models": [message_json(model) for model in listing.models],
                "problems": listing.problems,
                "own_file": listing.own_file,
            }
        )
        return
    session.write(render(listing, verbose=verbose, style=session.out_style))


def render(listing: RegistryList, *, verbose: bool = False, style: Style = PLAIN) -> str:
    """The table, what of the own file was left out, then the details."""
    text = format_table(_COLUMNS, [_row(model) for model in listing.models], style)
    if listing.problems:
        problems = "".join(f"  {one_line(problem)}\n" for problem in listing.problems)
        text += f"\nYour own file of models has mistakes:\n{problems}"
    if verbose:
        text += "".join(_details(model) for model in listing.models)
        if listing.own_file:
            text += f"\nModels of your own go into {one_line(listing.own_file)}.\n"
    return text


def _parameters_text(model: registry_service_pb2.RegistryModel) -> str:
    """All of them, and in brackets those that compute one token where these are fewer."""
    text = format_parameters(model.parameters_count)
    if 0 < model.active_parameters_count < model.parameters_count:
        return f"{text} ({format_parameters(model.active_parameters_count)})"
    return text


def _row(model: registry_service_pb2.RegistryModel) -> tuple[str, ...]:
    return (
        model.id,
        _parameters_text(model),
        format_bytes(min((size.size_bytes for size in model.sizes), default=0)),
        f"{model.overall_score:.0f}" if model.HasField("overall_score") else NOTHING,
        shortened(model.license, _LICENSE_COLUMNS) or NOTHING,
    )


def _names(model: registry_service_pb2.RegistryModel) -> list[tuple[str, str]]:
    """Places and what a pull calls the model there, in the order in which it would take them."""
    known = [place for place in _PLACES if model.names.get(place)]
    others = sorted(place for place in model.names if place not in _PLACES)
    return [
        (place, f"hf:{model.names[place]}" if place in _HUB_PLACES else model.names[place])
        for place in (*known, *others)
    ]


def _details(model: registry_service_pb2.RegistryModel) -> str:
    return f"\n{one_line(model.id)}:\n{indented_wrapped(list(_lines(model)))}"


def _lines(model: registry_service_pb2.RegistryModel) -> Iterator[tuple[str, str]]:
    released = f", {model.release_month}" if model.release_month else ""
    yield "is", f"{model.name or model.id} of {model.publisher or 'an unknown maker'}{released}"
    if model.is_own:
        yield "from", "your own file"
    yield from _abilities(model)
    for place, name in _names(model):
        yield "name", f"{name} ({place})"
    for size in model.sizes:
        yield "size", f"{format_bytes(size.size_bytes)} as {size.quantization or 'it is'} ({size.of})"
    if model.layers or model.layers_count:
        yield "layers", layers_text(model.layers_count, model.layers)
    for task, rank in sorted(model.ranks.items()):
        yield "rank", f"{rank.place} of {rank.models_count} in {task}"
    for what, url in sorted(model.sources.items()):
        yield "source", f"{what}: {url}"
    if model.notes:
        yield "note", model.notes


def _abilities(model: registry_service_pb2.RegistryModel) -> Iterator[tuple[str, str]]:
    if model.license:
        yield "license", model.license
    if model.train_context_tokens:
        yield "context", f"{model.train_context_tokens:,} tokens in training"
    if model.modalities:
        yield "reads", ", ".join(model.modalities)
    if can := [text for able, text in ((model.calls_tools, "call tools"), (model.thinks, "think")) if able]:
        yield "can", ", ".join(can)


def layers_text(count: int, groups: Iterable[registry_service_pb2.RegistryLayers]) -> str:
    """For example "48: 8 with 8 KV heads of 128 + 128, 40 with a window of 1,024 tokens, ..."."""
    every = [_group_text(group) for group in groups]
    return ": ".join(filter(None, (f"{count:,}" if count else "", "; ".join(every))))


def _group_text(group: registry_service_pb2.RegistryLayers) -> str:
    parts = []
    if group.kv_heads_count:
        parts.append(f"{group.kv_heads_count} KV heads of {group.key_length} + {group.value_length}")
    if group.window_tokens:
        parts.append(f"a window of {group.window_tokens:,} tokens")
    if group.recurrent_elements_count:
        parts.append(f"{group.recurrent_elements_count:,} numbers of recurrent state")
    return f"{group.layers_count:,} with {' and '.join(parts) or 'no cache of their own'}"
