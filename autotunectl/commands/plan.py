"""autotunectl plan: the whole decision for a request, without running it."""

from __future__ import annotations

from typing import Any, BinaryIO

import click
from autotune.errors import FieldInvalid
from autotune.v1 import model_service_pb2, plan_pb2

from autotunectl.chat.question import text_of
from autotunectl.json_output import enum_text, message_json
from autotunectl.memory_options import no_swap_of, profile_option, swap_option
from autotunectl.options import WHOLE_NUMBER, engine_option, verb
from autotunectl.output import NOTHING, PLAIN, Style, format_count, format_fields, one_line
from autotunectl.plans import fit_text, footprint_of, given_up_text, is_elsewhere, memory_table
from autotunectl.session import Session
from autotunectl.shapes import context_phrase, context_text, shape_lines

FLAGS = {
    "prompt_tokens": "--prompt-tokens",
    "chat": "--file",
    "max_reply_tokens": "--reply",
    "context_tokens": "--context",
    "engine": "--engine",
}


@verb("plan")
@click.argument("model")
@click.option("--prompt-tokens", type=WHOLE_NUMBER, help="Tokens of the prompt.")
@click.option("--file", type=click.File("rb"), help="A file with the prompt; - is standard input.")
@profile_option
@click.option("--context", type=WHOLE_NUMBER, help="Tokens of context, instead of the computed ones.")
@click.option("--reply", type=WHOLE_NUMBER, help="Tokens of the reply at most.")
@swap_option
@engine_option("Which engine runs it; see autotunectl engines.")
def command(session: Session, model: str, **settings: Any) -> None:
    """Show what a request to MODEL would lead to, and why.

    Nothing is run, loaded or changed. Without --prompt-tokens or --file it is a first message of which
    nothing is known yet.
    """
    session.flags = FLAGS
    prompt = _prompt(settings["prompt_tokens"], settings["file"])
    with session.connect() as client:
        response = client.plan_model(
            model,
            prompt=prompt,
            profile=settings["profile"] or "",
            max_reply_tokens=settings["reply"],
            context_tokens=settings["context"],
            no_swap=no_swap_of(settings["swap"]),
            engine=settings["engine"],
        )
        loaded = response.HasField("loaded_shape")
        now = footprint_of(client.list_running_models(), response.model) if loaded else None
    if session.json:
        footprint = message_json(now) if now else None
        session.write_json({**message_json(response), "loaded_footprint": footprint})
    else:
        session.write(render(response, now, session.out_style))


def _prompt(tokens: int | None, file: BinaryIO | None) -> str | int | None:
    if file is None:
        return tokens
    if tokens is not None:
        raise click.UsageError("--prompt-tokens and --file exclude each other")
    text = text_of(file, "Standard input" if file.name == "<stdin>" else file.name)
    if not text:
        raise FieldInvalid("The file is empty; leave --file out for a prompt that is not known yet.")
    return text


def render(
    response: model_service_pb2.PlanModelResponse, now: plan_pb2.Footprint | None, style: Style = PLAIN
) -> str:
    """The decision on one screen. ``now``: what the model takes as it is loaded."""
    plan, engine = response.plan, response.model.engine
    elsewhere = is_elsewhere(plan)
    fields = [
        ("Engine", engine or NOTHING),
        ("Context", context_text(plan.shape, engine)),
        *((name.capitalize(), value) for name, value in shape_lines(plan.shape, engine)),
    ]
    if not elsewhere:
        fields += [
            ("Fit", fit_text(plan.fit) if plan.HasField("fit") else "the loaded shape is kept"),
            ("Given up", given_up_text(plan.reduction_level)),
            ("Evicts", ", ".join(plan.evicted_models) or "nothing"),
            ("Pressure", enum_text(plan, "pressure_tier")),
        ]
    fields += [("Why" if number == 0 else "", reason.text) for number, reason in enumerate(plan.reasons)]
    text = f"{style.bold(one_line(_headline(response)))}\n\n{format_fields(fields)}"
    return text if elsewhere else f"{text}\n{memory_table(now, plan, style)}"


def _headline(response: model_service_pb2.PlanModelResponse) -> str:
    model, engine, plan = response.model.id, response.model.engine, response.plan
    context = context_phrase(plan.shape, engine)
    if is_elsewhere(plan):
        return f"{model} would answer on {engine}, with {context}."
    match plan.action:
        case plan_pb2.PLAN_ACTION_REUSE:
            return f"{model} would answer as it is loaded, with {context}."
        case plan_pb2.PLAN_ACTION_GROW:
            before = format_count(response.loaded_shape.context_tokens)
            after = format_count(plan.shape.context_tokens)
            return f"{model} would be loaded again: its context would grow from {before} to {after} tokens."
        case plan_pb2.PLAN_ACTION_SHRINK:
            return f"{model} would be loaded again in a smaller shape, with {context}."
        case _:
            return f"{model} would be loaded with {context}."
