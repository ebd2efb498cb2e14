"""The options that chat and run share, and what both do with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from autotunectl.chat.conversation import Conversation
from autotunectl.output import printable

if TYPE_CHECKING:
    from autotune.client import Client

    from autotunectl.session import Session


def conversation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of ``Conversation`` and ``--stats``."""
    for option in reversed(
        (
            click.option(
                "-p",
                "--profile",
                type=click.Choice(["fast", "balanced", "quality"]),
                envvar="AUTOTUNE_PROFILE",
                help="Which defaults answers take.",
            ),
            click.option("-s", "--system", default="", metavar="TEXT", help="Instructions to the model."),
            click.option("--temperature", type=float, help="0 is greedy; at most 5."),
            click.option("--max-tokens", type=int, help="Tokens of an answer at most."),
            click.option("--seed", type=int, help="Equal seeds give equal answers."),
            click.option("--context", type=int, help="Tokens of context, instead of the computed ones."),
            click.option("--stats/--no-stats", default=None, help="Show the numbers of each answer."),
        )
    ):
        function = option(function)
    return function


def converse(
    session: Session,
    client: Client,
    conversation: Conversation,
    *,
    question: str,
    stats: bool | None,
) -> int:
    """Asks ``question``, or talks at the terminal when it is empty; returns the exit status."""
    if question:
        from autotunectl.chat.oneshot import ask

        return ask(session, client, conversation.request(question), stats=stats)
    from autotune.state import state_directory

    from autotunectl.chat.prompt import Prompt
    from autotunectl.chat.repl import Repl

    conversation.model = client.get_model(conversation.model).id
    session.note(f"Talking to {printable(conversation.model)}; /help lists the commands, Ctrl-D leaves.")
    prompt = Prompt(state_directory())
    return Repl(session, client, conversation, read=prompt.read, shows_numbers=stats is not False).run()


def conversation_of(
    model: str,
    *,
    profile: str | None,
    system: str,
    temperature: float | None,
    max_tokens: int | None,
    seed: int | None,
    context: int | None,
) -> Conversation:
    """An empty conversation with these settings."""
    return Conversation(
        model=model,
        profile=profile or "",
        system=system,
        sampling={
            "temperature": temperature,
            "max_reply_tokens": max_tokens,
            "seed": seed,
            "context_tokens": context,
        },
    )


def refuse_json_dialogue(session: Session, question: str) -> None:
    """Raises UsageError for a dialogue with ``--json``: a program sends its question along."""
    if session.json and not question:
        raise click.UsageError("--json needs a question, as an argument or on standard input")
