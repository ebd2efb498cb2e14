"""Which engine runs a request, and what is told about it."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from autotuned.core.engine import EngineState, EngineStatus, Finding, Severity
from autotuned.core.model import ModelEntry
from autotuned.policy.routing import GPU_UNUSED, Candidate, route
from tests.examples import POCKET

ON_THE_CPU = Finding(code=GPU_UNUSED, severity=Severity.WARNING, subject="llamacpp", text="A GPU is unused.")


def candidate(engine="llamacpp", *, local=True, loaded=False, refusal="", gpu_unused=False):
    return Candidate(
        entry=ModelEntry(id="m", engine=engine, path="", size_bytes=1, facts=POCKET),
        status=EngineStatus(
            name=engine, state=EngineState.READY, findings=(ON_THE_CPU,) if gpu_unused else ()
        ),
        is_local=local,
        is_loaded=loaded,
        refusal=refusal,
    )


def choice(*candidates, engine="", prefer="auto"):
    chosen = route(candidates, engine=engine, prefer=prefer)
    return chosen.candidate.entry.engine, [reason.text for reason in chosen.reasons]


def test_where_there_is_no_choice_nothing_is_said():
    assert choice(candidate()) == ("llamacpp", [])
    assert choice(candidate("gpu", local=False)) == ("gpu", [])


def test_what_is_said_explicitly_wins_over_everything():
    candidates = (candidate(loaded=True), candidate("ollama", refusal="tools are not supported"))
    why = ["ollama runs it: the request names it."]
    assert choice(*candidates, engine="ollama", prefer="llamacpp") == ("ollama", why)


def test_who_can_do_it_wins_over_who_has_it_in_memory():
    images = "images are not supported; send text only"
    candidates = (candidate(loaded=True, refusal=images), candidate("ollama"))
    why = [f"ollama runs it: llamacpp cannot do what is asked ({images})."]
    assert choice(*candidates) == ("ollama", why)


def test_where_it_is_in_memory_wins_over_what_is_configured():
    why = ["ollama runs it: the model is in memory there."]
    assert choice(candidate(), candidate("ollama", loaded=True), prefer="llamacpp") == ("ollama", why)


def test_what_is_configured_wins_over_what_is_fast():
    why = ["gpu runs it: engines.prefer names it."]
    assert choice(candidate(), candidate("gpu", local=False), prefer="gpu") == ("gpu", why)
    assert choice(candidate(), candidate("ollama"), prefer="mlx")[0] == "llamacpp"


def test_a_cpu_beside_a_gpu_is_no_silent_choice():
    slow = candidate(gpu_unused=True)
    assert choice(slow, candidate("ollama")) == (
        "ollama",
        ["ollama runs it: it is faster here than llamacpp."],
    )
    name, told = choice(slow)
    assert name == "llamacpp"
    assert told == [
        'llamacpp computes on the CPU though the machine has a GPU; "autotunectl doctor" says how to use it.'
    ]


def test_a_server_elsewhere_comes_last():
    assert choice(candidate("gpu", local=False), candidate(gpu_unused=True))[0] == "llamacpp"


def test_of_those_that_are_alike_the_first_is_taken():
    why = ["llamacpp runs it: it comes first of those that are as fast here."]
    assert choice(candidate(), candidate("ollama")) == ("llamacpp", why)


def test_where_nobody_can_do_it_the_best_place_says_so():
    problem = "tools are not supported"
    assert choice(candidate(refusal=problem), candidate("ollama", refusal=problem))[0] == "llamacpp"


CANDIDATES = st.lists(
    st.builds(
        candidate,
        st.sampled_from(["llamacpp", "mlx", "ollama", "lmstudio", "gpu"]),
        local=st.booleans(),
        loaded=st.booleans(),
        refusal=st.sampled_from(["", "no"]),
        gpu_unused=st.booleans(),
    ),
    min_size=1,
    unique_by=lambda each: each.entry.engine,
)


@given(CANDIDATES, st.sampled_from(["auto", "ollama", "mlx"]))
def test_nobody_is_asked_for_what_he_cannot_do_while_another_can(candidates, prefer):
    chosen = route(candidates, engine="", prefer=prefer)
    if any(not each.refusal for each in candidates):
        assert not chosen.candidate.refusal
    if (
        not chosen.candidate.is_local
        and not chosen.candidate.is_loaded
        and chosen.candidate.entry.engine != prefer
    ):
        assert not any(each.is_local and not each.refusal for each in candidates) or chosen.candidate.refusal
    assert bool(chosen.reasons) or len(candidates) == 1


@pytest.mark.parametrize("engine", ["llamacpp", "ollama"])
def test_the_engine_that_is_named_need_not_be_able(engine):
    assert choice(candidate(refusal="no"), candidate("ollama", refusal="no"), engine=engine)[0] == engine
