"""The slash commands of a conversation: what each does to it and what it says.

``repl`` gives every line that begins with "/" to ``Slash.run``. Invariant: a command never ends the
program; what cannot be done is an AutotuneError or a sentence.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autotune.chat import PROFILES

from autotunectl.chat.conversation import Conversation, export_json, history_text, markdown
from autotunectl.chat.numbers import conversation_numbers
from autotunectl.output import format_wrapped

COMMANDS = {
    "/help": ("", "show this list"),
    "/new": ("", "begin a new conversation"),
    "/history": ("", "show what was said"),
    "/profile": ("[fast|balanced|quality]", "show or set which defaults answers take"),
    "/model": ("[NAME]", "show or set which model answers; ENGINE/NAME chooses its engine, too"),
    "/pull": ("[NAME]", "download a model, or show which ones suit this machine"),
    "/system": ("[TEXT|off]", "show, set or drop the instructions to the model"),
    "/metrics": ("[on|off]", "show what the conversation took, or switch the line under each answer"),
    "/export": ("[FILE]", "write the conversation as Markdown, or as JSON to a .json file"),
    "/quit": ("", "leave; so does Ctrl-D"),
}


@dataclass(slots=True)
class ReplState:
    """What the commands change beside the conversation."""

    shows_numbers: bool
    leaves: bool = False


class Slash:
    """``choose_model`` checks a name with the daemon: id, and engine or ""; it raises AutotuneError.

    ``pull_model`` downloads a name ("" tells which ones suit) and returns what to print; it raises
    AutotuneError.
    """

    def __init__(
        self,
        conversation: Conversation,
        state: ReplState,
        choose_model: Callable[[str], tuple[str, str]],
        pull_model: Callable[[str], str],
    ) -> None:
        self._conversation = conversation
        self._state = state
        self._choose_model = choose_model
        self._actions: dict[str, Callable[[str], str]] = {
            "/help": self._help,
            "/new": self._new,
            "/history": self._history,
            "/profile": self._profile,
            "/model": self._model,
            "/pull": pull_model,
            "/system": self._system,
            "/metrics": self._metrics,
            "/export": self._export,
            "/quit": self._quit,
            "/exit": self._quit,
        }

    def run(self, line: str) -> str:
        """Carries out ``line``; returns what to print."""
        name, _, argument = line.strip().partition(" ")
        action = self._actions.get(name)
        if action is None:
            near = difflib.get_close_matches(name, self._actions, n=1)
            hint = f"did you mean {near[0]}?" if near else "/help lists them."
            return f"There is no command {name}; {hint} Begin with // to send it as text.\n"
        return action(argument.strip())

    def _help(self, _argument: str) -> str:
        lines = [(f"{name} {usage}".strip(), text) for name, (usage, text) in COMMANDS.items()]
        return (
            f"{format_wrapped(lines)}Ctrl-C stops an answer, Alt-Enter begins a new line.\n"
            "Double a / to send text that begins so.\n"
        )

    def _new(self, _argument: str) -> str:
        self._conversation.clear()
        return "A new conversation.\n"

    def _history(self, _argument: str) -> str:
        return history_text(self._conversation)

    def _profile(self, argument: str) -> str:
        if not argument:
            return f"The profile is {self._conversation.profile or 'the default one'}.\n"
        if argument not in PROFILES:
            return f'There is no profile "{argument}"; it is one of {", ".join(PROFILES)}.\n'
        self._conversation.profile = argument
        return f"The profile is {argument}.\n"

    def _model(self, argument: str) -> str:
        if argument:
            self._conversation.model, self._conversation.engine = self._choose_model(argument)
        return f"The model is {self._conversation.place or 'the default one'}.\n"

    def _system(self, argument: str) -> str:
        if argument == "off":
            self._conversation.system = ""
        elif argument:
            self._conversation.system = argument
        instructions = self._conversation.system
        return f"The instructions are: {instructions}\n" if instructions else "There are no instructions.\n"

    def _metrics(self, argument: str) -> str:
        if argument not in {"on", "off"}:
            return conversation_numbers(self._conversation.replies)
        self._state.shows_numbers = argument == "on"
        return f"Numbers under each answer are {argument}.\n"

    def _export(self, argument: str) -> str:
        if not self._conversation.turns:
            return "There is nothing to export yet.\n"
        path = Path(argument or "autotune-chat.md").expanduser()
        if path.suffix == ".json":
            text = json.dumps(export_json(self._conversation), ensure_ascii=False, indent=2) + "\n"
        else:
            text = markdown(self._conversation)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            return f"{path} exists; name another file.\n"
        except OSError as error:
            return f"{path} cannot be written ({error.strerror or error}); name another file.\n"
        return f"Wrote {path}.\n"

    def _quit(self, _argument: str) -> str:
        self._state.leaves = True
        return ""
