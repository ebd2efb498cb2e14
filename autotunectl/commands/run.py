"""autotunectl run: loads a model, shows the plan, and talks to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from autotune.requests import load_model_request
from autotune.v1 import plan_pb2

from autotunectl.chat.options import (
    FLAGS,
    conversation_of,
    conversation_options,
    converse,
    refuse_json_dialogue,
)
from autotunectl.chat.question import question_of
from autotunectl.loading import load_model, loaded_line
from autotunectl.memory_options import no_swap_of
from autotunectl.options import verb
from autotunectl.output import one_line
from autotunectl.plans import indented, is_risky, plan_lines
from autotunectl.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autotune.client import Client


@verb("run")
@click.argument("model")
@click.argument("question", nargs=-1)
@conversation_options
def command(
    session: Session, model: str, question: tuple[str, ...], stats: bool | None, **settings: Any
) -> int:
    """Load MODEL, show what was planned, and talk to it.

    With a QUESTION, or with text on standard input, it answers once and ends.
    """
    session.flags = FLAGS
    text = question_of(question)
    refuse_json_dialogue(session, text)
    with session.connect() as client:
        if not session.json:
            _show_plan(session, client, model, settings)
        request = load_model_request(
            model,
            settings["context"],
            profile=settings["profile"] or "",
            no_swap=no_swap_of(settings["swap"]),
            keep_alive_seconds=settings["keep_alive"],
            engine=settings["engine"],
        )
        loaded = load_model(session, client, request)
        session.note(loaded_line(loaded))
        return converse(session, client, conversation_of(model, settings), question=text, stats=stats)


def _show_plan(session: Session, client: Client, model: str, settings: Mapping[str, Any]) -> None:
    response = client.plan_model(
        model,
        profile=settings["profile"] or "",
        context_tokens=settings["context"],
        no_swap=no_swap_of(settings["swap"]),
        engine=settings["engine"],
    )
    lines = plan_lines(response.plan, response.model.engine)
    session.note(f"Plan for {one_line(response.model.id)}:\n{indented(lines)}".rstrip("\n"))
    if response.plan.HasField("fit") and is_risky(response.plan.fit):
        session.note(session.error_style.red(risk_text(model, response.plan.fit, settings["engine"])))


def risk_text(model: str, fit: plan_pb2.Fit, engine: str = "") -> str:
    """What a load that does not fit means, and what to do instead.

    ``model`` and ``engine`` are as they were typed: they are part of the command that is proposed.
    """
    risk = "may push memory to disk" if fit.fit_class == plan_pb2.FIT_CLASS_SWAP_RISK else "does not fit"
    name = one_line(model)
    if not fit.safe_context_tokens:
        return f"{name} {risk} at any context; choose a smaller model or a smaller quantization of it."
    again = f"--context {fit.safe_context_tokens}"
    if engine:
        again += f" --engine {one_line(engine)}"
    return (
        f'{name} {risk} in this shape; "autotunectl run {name} {again}" fits, '
        "and --no-swap refuses what does not."
    )
