"""A conversation: what is sent, what is kept, what each slash command does."""

from __future__ import annotations

import json
import signal

import grpc
import pytest
from autotune.client import Client
from autotune.v1 import chat_pb2, model_pb2
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from autotunectl.chat import repl as repl_module
from autotunectl.chat.conversation import Conversation
from autotunectl.chat.prompt import PrivateHistory, SlashCompleter, key_bindings, open_history
from autotunectl.chat.repl import Repl
from autotunectl.chat.screen import Screen
from autotunectl.chat.slash import COMMANDS, ReplState, Slash
from autotunectl.session import Session
from tests.autotunectl.conversing import converse
from tests.fakes.fake_daemon import FakeDaemon, fail_with, say
from tests.fakes.fake_messages import delta, finished, rich_status, started


def sent(daemon) -> list[str]:
    return [message.parts[0].text for message in daemon.requests[-1].chat.messages]


def test_without_a_folder_nothing_that_is_typed_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    history = open_history(None)
    history.store_string("a secret")
    assert list(tmp_path.iterdir()) == []


def test_every_request_carries_the_whole_conversation(daemon, capsys):
    daemon.script = say("Hello.")
    conversation = converse(daemon, ["One?", "  ", "Two?"], system="Be brief.", model="pocket")
    assert sent(daemon) == ["Be brief.", "One?", "Hello.", "Two?"]
    roles = [message.role for message in daemon.requests[-1].chat.messages]
    assert roles == [chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_USER, chat_pb2.ROLE_ASSISTANT, chat_pb2.ROLE_USER]
    first, second = (request.chat.messages for request in daemon.requests)
    assert list(second[: len(first)]) == list(first)
    assert len(conversation.replies) == 2
    assert capsys.readouterr().out == "Hello.\nHello.\n"


def test_numbers_follow_each_answer_unless_switched_off(daemon, capsys):
    daemon.script = say("Hello.")
    converse(daemon, ["/metrics on", "One?", "/metrics off", "Two?"])
    assert capsys.readouterr().err.count("TTFT 21.0 ms") == 1


def test_an_error_is_a_sentence_and_the_question_is_not_kept(daemon, capsys):
    status = rich_status(grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_TOO_LONG", "Too long; shorten it.")
    daemon.script = fail_with(status)
    conversation = converse(daemon, ["One?", "/quit"])
    assert conversation.turns == []
    assert capsys.readouterr().err == "Too long; shorten it.\n"


def test_text_that_is_no_unicode_is_a_sentence(daemon, capsys):
    converse(daemon, ["bad \udcff"])
    assert "lone surrogate" in capsys.readouterr().err
    assert daemon.requests == []


@pytest.fixture
def ctrl_c_after_text(monkeypatch):
    """Presses Ctrl-C as soon as a piece of text has been shown."""
    show = Screen.show

    def show_and_interrupt(self, event):
        show(self, event)
        if event.delta.text:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Screen, "show", show_and_interrupt)


def test_ctrl_c_stops_the_answer_and_keeps_what_came(daemon, capsys, ctrl_c_after_text):
    def script(request, context):
        yield started()
        yield delta("Once upon")
        daemon.hold(context)
        yield finished()

    daemon.script = script
    conversation = converse(daemon, ["A story."])
    assert daemon.cancelled.wait(10)
    assert [turn.text for turn in conversation.turns] == ["A story.", "Once upon"]
    assert conversation.replies == []
    assert capsys.readouterr() == ("Once upon\n", "Stopped; what came is kept.\n")


def test_ctrl_c_before_the_answer_forgets_the_question(daemon, capsys, monkeypatch):
    monkeypatch.setattr(Screen, "show", lambda *_: signal.raise_signal(signal.SIGINT))
    conversation = converse(daemon, ["A story."])
    assert conversation.turns == []
    assert capsys.readouterr().err == "Stopped before the answer began; the question is forgotten.\n"


def test_ctrl_c_at_the_prompt_is_a_hint(daemon, capsys):
    converse(daemon, [KeyboardInterrupt, KeyboardInterrupt])
    assert capsys.readouterr().err == "Ctrl-D or /quit leaves.\n" * 2


def test_a_daemon_that_has_gone_is_started_again(daemon, capsys, monkeypatch):
    with FakeDaemon() as second:
        second.script = say("Back again.")
        session = Session()
        monkeypatch.setattr(Session, "connect", lambda _: Client(second.address))
        entries = iter(["One?"])
        with Client(daemon.address) as client:
            daemon.stop()

            def read() -> str:
                try:
                    return next(entries)
                except StopIteration:
                    raise EOFError from None

            Repl(session, client, Conversation(), read=read, shows_numbers=False).run()
        assert len(second.requests) == 1
    assert capsys.readouterr().out == "Back again.\n"


def test_the_repl_ends_with_the_slash_command(daemon):
    daemon.script = say("Hello.")
    conversation = converse(daemon, ["/quit", "never read"])
    assert conversation.turns == []
    assert repl_module.exits.DONE == 0


def resolve(name: str) -> tuple[str, str]:
    return {"pocket": ("pocket", "")}[name]


def command(conversation: Conversation, line: str) -> str:
    return Slash(conversation, ReplState(shows_numbers=True), resolve, str).run(line)


def talked() -> Conversation:
    from autotune.chat import ReplyBuilder

    builder = ReplyBuilder()
    for event in (started(), delta("Paris."), finished()):
        builder.add(event)
    conversation = Conversation(model="pocket", system="Be brief.")
    conversation.add("Capital?", builder.reply(), whole=True)
    return conversation


def test_help_lists_every_command():
    text = command(Conversation(), "/help")
    for name, (usage, explanation) in COMMANDS.items():
        assert f"{name} {usage}".strip() in text
        assert explanation in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_new_forgets_and_history_shows():
    conversation = talked()
    assert command(conversation, "/history") == "> Capital?\nParis.\n"
    assert command(conversation, "/new") == "A new conversation.\n"
    assert command(conversation, "/history") == "Nothing was said yet.\n"
    assert conversation.model == "pocket"


def test_profile_is_shown_set_and_checked():
    conversation = Conversation()
    assert command(conversation, "/profile") == "The profile is the default one.\n"
    assert command(conversation, "/profile fast") == "The profile is fast.\n"
    assert command(conversation, "/profile swift") == (
        'There is no profile "swift"; it is one of fast, balanced, quality.\n'
    )
    assert conversation.profile == "fast"


def test_system_is_shown_set_and_dropped():
    conversation = Conversation()
    assert command(conversation, "/system") == "There are no instructions.\n"
    assert command(conversation, "/system  Be brief. ") == "The instructions are: Be brief.\n"
    assert conversation.system == "Be brief."
    assert command(conversation, "/system off") == "There are no instructions.\n"


def test_model_is_checked_with_the_daemon(daemon, capsys):
    daemon.models = [model_pb2.Model(id="pocket"), model_pb2.Model(id="other")]
    conversation = converse(daemon, ["/model", "/model other", "/model nothing"], model="pocket")
    assert conversation.model == "other"
    shown = capsys.readouterr()
    assert shown.out == "The model is pocket.\nThe model is other.\n"
    assert shown.err == (
        'There is no model "nothing"; did you mean "pocket"? "autotunectl ls" lists the models.\n'
    )


def test_metrics_show_what_it_took():
    assert command(talked(), "/metrics").startswith("1 answer: mean TTFT 21.0 ms")


def test_export_writes_markdown_and_json_and_overwrites_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    conversation = talked()
    assert command(Conversation(), "/export") == "There is nothing to export yet.\n"
    assert command(conversation, "/export") == "Wrote autotune-chat.md.\n"
    assert (tmp_path / "autotune-chat.md").read_text() == (
        "# Conversation with pocket\n\n**System:** Be brief.\n\n## You\n\nCapital?\n\n## Model\n\nParis.\n"
    )
    assert command(conversation, "/export") == "autotune-chat.md exists; name another file.\n"
    assert command(conversation, "/export talk.json") == "Wrote talk.json.\n"
    assert json.loads((tmp_path / "talk.json").read_text())["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Capital?"},
        {"role": "assistant", "content": "Paris."},
    ]
    assert command(conversation, "/export no/such/folder.md") == (
        "no/such/folder.md cannot be written (No such file or directory); name another file.\n"
    )


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("/hlep", "There is no command /hlep; did you mean /help?"),
        ("/usr/bin/python what is this?", "There is no command /usr/bin/python; /help lists them."),
    ],
)
def test_an_unknown_command_gets_a_suggestion(line, hint):
    assert command(Conversation(), line) == f"{hint} Begin with // to send it as text.\n"


def test_text_that_begins_with_a_slash_can_be_sent(daemon):
    converse(daemon, ["//etc/hosts?"])
    assert sent(daemon) == ["/etc/hosts?"]


def test_quit_and_exit_leave():
    for line in ("/quit", "/exit"):
        state = ReplState(shows_numbers=True)
        assert Slash(Conversation(), state, resolve, str).run(line) == ""
        assert state.leaves


def test_commands_are_completed():
    def complete(text: str) -> list[str]:
        return [each.text for each in SlashCompleter().get_completions(Document(text), CompleteEvent())]

    assert complete("/m") == ["/model", "/metrics"]
    assert complete("/") == list(COMMANDS)
    assert complete("hello /m") == []


def test_the_history_is_kept_for_its_owner_alone(tmp_path):
    folder = tmp_path / "state"
    open_history(folder).store_string("one\ntwo")
    assert list(open_history(folder).load_history_strings()) == ["one\ntwo"]
    assert (folder / "chat_history").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_history_that_others_could_read_is_closed_to_them(tmp_path):
    path = tmp_path / "chat_history"
    path.write_text("")
    path.chmod(0o644)
    open_history(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_large_history_is_begun_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("autotunectl.chat.prompt._HISTORY_MAX_BYTES", 100)
    open_history(tmp_path).store_string("something long " * 10)
    open_history(tmp_path).store_string("new")
    assert list(open_history(tmp_path).load_history_strings()) == ["new"]


def test_a_home_that_cannot_be_written_has_a_history_in_memory(read_only_folder, unprivileged):
    with unprivileged():
        history = open_history(read_only_folder / "state")
    assert isinstance(history, InMemoryHistory)


def test_a_history_that_fails_later_does_not_disturb(tmp_path):
    history = PrivateHistory(tmp_path / "gone" / "chat_history")
    history.store_string("lost")
    assert list(history.load_history_strings()) == []
    kept = open_history(tmp_path)
    kept.store_string("bad \udcff")
    kept.store_string("good")
    assert next(iter(kept.load_history_strings())) == "good"


async def test_ctrl_c_may_come_again_before_the_prompt_has_gone():
    with create_pipe_input() as keys:
        session = PromptSession(key_bindings=key_bindings(), input=keys, output=DummyOutput())
        interrupt = session.app.key_processor.send_sigint

        def twice() -> None:
            interrupt()
            interrupt()

        with pytest.raises(KeyboardInterrupt):
            await session.prompt_async("> ", pre_run=twice)
        interrupt()
