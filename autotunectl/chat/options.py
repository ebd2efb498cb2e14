"""The options that chat and run share, and what both do with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from autotunectl.chat.conversation import Conversation
from autotunectl.memory_options import keep_alive_option, no_swap_of, profile_option, swap_option
from autotunectl.options import WHOLE_NUMBER, engine_option
from autotunectl.output import printable

if TYPE_CHECKING:
    from autotune.client import Client

    from autotunectl.session import Session


FLAGS = {
    "sampling.temperature": "--temperature",
    "sampling.seed": "--seed",
    "max_reply_tokens": "--max-tokens",
    "context_tokens": "--context",
    "keep_alive_duration": "--keep-alive",
    "engine": "--engine",
}


def conversation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of ``conversation_of`` and ``--stats``."""
    for option in reversed(
        (
            profile_option,
            click.option("-s", "--system", default="", metavar="TEXT", help="Instructions to the model."),
            click.option("--temperature", type=float, help="0 is greedy; at most 5."),
            click.option("--max-tokens", type=WHOLE_NUMBER, help="Tokens of an answer at most."),
            click.option("--seed", type=WHOLE_NUMBER, help="Equal seeds give equal answers."),
            click.option(
                "--context", type=WHOLE_NUMBER, help="Tokens of context, instead of the computed ones."
            ),
            swap_option,
            keep_alive_option,
            engine_option("Which engine runs the model; see autotunectl engines."),
            click.option("--no-store", is_flag=True, help="Keep nothing of the conversation on disk."),
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

    from autotunectl.chat.choice import choose
    from autotunectl.chat.prompt import Prompt
    from autotunectl.chat.repl import Repl

    conversation.model, conversation.engine = choose(client, conversation.model, conversation.engine)
    session.note(f"Talking to {printable(conversation.place)}; /help lists the commands, Ctrl-D leaves.")
    keeps_nothing = conversation.options["store"] is False
    prompt = Prompt(None if keeps_nothing else state_directory())
    return Repl(session, client, conversation, read=prompt.read, shows_numbers=stats is not False).run()


def conversation_of(model: str, settings: Mapping[str, Any]) -> Conversation:
    """An empty conversation. ``settings``: the options above, by the names that click gives them."""
    return Conversation(
        model=model,
        profile=settings["profile"] or "",
        system=settings["system"],
        engine=settings["engine"],
        options={
            "temperature": settings["temperature"],
            "max_reply_tokens": settings["max_tokens"],
            "seed": settings["seed"],
            "context_tokens": settings["context"],
            "no_swap": no_swap_of(settings["swap"]),
            "keep_alive_seconds": settings["keep_alive"],
            "store": False if settings["no_store"] else None,
        },
    )


def refuse_json_dialogue(session: Session, question: str) -> None:
    """Raises UsageError for a dialogue with ``--json``: a program sends its question along."""
    if session.json and not question:
        raise click.UsageError("--json needs a question, as an argument or on standard input")
