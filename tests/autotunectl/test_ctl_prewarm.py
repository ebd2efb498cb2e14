"""What a conversation begins with is computed while the person types."""

from __future__ import annotations

from autotune.client import Client
from autotune.v1 import inference_service_pb2, model_pb2

from autotunectl.chat.conversation import Conversation
from autotunectl.chat.repl import Repl
from autotunectl.session import Session
from tests.fakes.fake_daemon import say

PATIENCE_SECONDS = 10.0


def talk(daemon, steps, **settings) -> Conversation:
    """Types each entry once as many prewarms as it says have come, then leaves."""
    conversation = Conversation(**settings)
    pending = iter(steps)
    seen = 0

    def read() -> str:
        nonlocal seen
        entry, prewarms_count = next(pending, (None, 0))
        while seen < prewarms_count:
            assert daemon.prewarming.acquire(timeout=PATIENCE_SECONDS), "a prewarm never came"
            seen += 1
        if entry is None:
            raise EOFError
        return entry

    with Client(daemon.address) as client:
        assert Repl(Session(), client, conversation, read=read, shows_numbers=False).run() == 0
    return conversation


def begun(daemon) -> list[list[str]]:
    return [[message.parts[0].text for message in got.chat.messages] for got in daemon.prewarms]


def test_each_new_beginning_is_prewarmed_and_nothing_else(daemon):
    daemon.script = say("Hello.")
    daemon.models = [model_pb2.Model(id="pocket"), model_pb2.Model(id="other")]
    steps = [
        ("/history", 1),
        ("/new", 1),
        ("/system Be kind.", 1),
        ("One?", 2),
        ("/history", 2),
        ("/model other", 2),
        ("/new", 3),
        ("/quit", 4),
    ]
    options = {"context_tokens": 4096, "no_swap": True, "store": False, "keep_alive_seconds": 5.0}
    talk(daemon, steps, system="Be brief.", model="pocket", options=options)
    assert begun(daemon) == [["Be brief."], ["Be kind."], ["Be kind.", "One?", "Hello."], ["Be kind."]]
    first, *_, last = daemon.prewarms
    assert (first.model, last.model) == ("pocket", "other")
    assert (first.context_tokens, first.swap_policy) == (4096, inference_service_pb2.SWAP_POLICY_NEVER)
    assert first.store_policy == inference_service_pb2.STORE_POLICY_DISCARD


def test_a_question_does_not_wait_for_a_prewarm_and_leaving_ends_it(daemon):
    daemon.prewarm_holds = True
    daemon.script = say("Hello.")
    conversation = talk(daemon, [("One?", 1)])
    assert [turn.text for turn in conversation.turns] == ["One?", "Hello."]
    assert daemon.cancelled.wait(PATIENCE_SECONDS)


def test_a_prewarm_that_fails_says_nothing(daemon, capsys):
    daemon.stop()
    assert talk(daemon, [("/history", 0)]).turns == []
    assert capsys.readouterr() == ("Nothing was said yet.\n", "")


def test_what_cannot_be_sent_is_told_by_the_question_and_can_be_mended(daemon, capsys):
    steps = [("One?", 0), ("/system Be kind.", 0), ("/quit", 1)]
    conversation = talk(daemon, steps, system="bad \udcff")
    assert conversation.system == "Be kind."
    assert capsys.readouterr().err.count("lone surrogate") == 1
    assert begun(daemon) == [["Be kind."]]
