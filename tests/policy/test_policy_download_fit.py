"""Whether a download will fit into memory: refused where it never will, told where it will not now."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from autotuned.core.errors import ModelTooLarge
from autotuned.policy.download_fit import Wanted, checked
from autotuned.policy.places import Place
from autotuned.policy.registry_facts import facts_of
from tests.examples import DEFAULTS
from tests.policy.invented import GIB, MEMORY, budget, model

KNOWN = model("m")
FACTS = facts_of(KNOWN, KNOWN.sizes[0])
# Of which the planner lets a model have next to nothing: the budgets alone decide.
LITTLE = replace(MEMORY, reading=replace(MEMORY.reading, total_bytes=1 << 20))


def wanted(weights_gib=4.0, facts=None, **changes):
    return Wanted(model_id="m:8b", weights_bytes=int(weights_gib * GIB), facts=facts, **changes)


def fit(want, *budgets, defaults=DEFAULTS, memory=LITTLE, allow_too_large=False):
    return [
        (reason.code, reason.text)
        for reason in checked(want, budgets, defaults, memory, allow_too_large=allow_too_large)
    ]


def test_a_known_model_is_reckoned_with_a_first_message_in_it():
    ((code, text),) = fit(wanted(facts=FACTS), budget(16))
    assert code == "fits"
    assert text.startswith("It will take 4.")
    assert text.endswith(
        " with a context of 4,096 tokens, of the 16.0 GiB that a model may take of unified memory."
    )


def test_its_own_context_may_be_shorter():
    ((_, text),) = fit(wanted(facts=replace(FACTS, train_context_tokens=2048)), budget(16))
    assert "2,048 tokens" in text


def test_of_an_unknown_one_the_size_tells():
    ((code, text),) = fit(wanted(10), budget(16))
    assert code == "fits"
    assert (
        text
        == "It will take about 11.5 GiB, by its size alone, of the 16.0 GiB that a model may take of unified memory."
    )


def test_what_never_fits_is_refused_with_what_would_fit():
    with pytest.raises(ModelTooLarge) as refused:
        fit(wanted(20, suggestion="qwen3:8b"), budget(8, Place.GPU), budget(16, Place.RAM))
    assert str(refused.value) == (
        '"m:8b" will not fit: it would take about 22.5 GiB, by its size alone, and a model may take '
        '16.0 GiB of RAM here; "qwen3:8b" fits.'
    )
    assert refused.value.metadata["capacityBytes"] == str(16 * GIB)
    assert refused.value.metadata["suggestion"] == "qwen3:8b"


def test_without_a_suggestion_the_sentence_ends_before_it():
    with pytest.raises(ModelTooLarge, match=r"16\.0 GiB of RAM here\.$"):
        fit(wanted(20), budget(16, Place.RAM))


def test_who_insists_gets_it_and_is_told():
    ((code, text),) = fit(wanted(20), budget(16, Place.RAM), allow_too_large=True)
    assert code == "too-large"
    assert text == (
        "It will take about 22.5 GiB, by its size alone, more than the 16.0 GiB that a model may take of RAM."
    )


def test_what_leaves_others_little_but_would_load_is_no_refusal():
    memory = replace(MEMORY, reading=replace(MEMORY.reading, total_bytes=24 * GIB))
    ((code, text),) = fit(wanted(20), budget(20, Place.RAM), memory=memory)
    assert code == "tight"
    assert text == (
        "It will take about 22.5 GiB, by its size alone, which leaves other programs less than they usually "
        "take: close nearly everything else before it loads."
    )
    with pytest.raises(ModelTooLarge):
        fit(wanted(21), budget(20, Place.RAM), memory=memory)
    with pytest.raises(ModelTooLarge):
        fit(wanted(20), budget(20, Place.GPU), memory=memory)


def test_the_first_memory_that_holds_it_is_told():
    found = (budget(8, Place.GPU), budget(32, Place.RAM))
    assert fit(wanted(4), *found)[0][1].endswith("of the 8.0 GiB that a model may take of GPU.")
    assert fit(wanted(10), *found)[0][1].endswith("of the 32.0 GiB that a model may take of RAM.")


def test_a_gpu_holds_what_fits_there_with_a_smaller_cache():
    ((_, text),) = fit(wanted(facts=FACTS), budget(4.6, Place.GPU), budget(32, Place.RAM))
    assert text.endswith(
        "with a context of 4,096 tokens in Q8_0, of the 4.6 GiB that a model may take of GPU."
    )


def test_a_gpu_computes_longer_batches_which_take_more():
    chosen = replace(DEFAULTS, batch_tokens=0)

    def required_bytes(place):
        with pytest.raises(ModelTooLarge) as refused:
            fit(wanted(facts=FACTS), budget(1, place), defaults=chosen)
        return int(refused.value.metadata["requiredBytes"])

    assert required_bytes(Place.GPU) > required_bytes(Place.RAM)


def test_a_gpu_that_no_engine_uses_holds_nothing():
    with pytest.raises(ModelTooLarge):
        fit(wanted(10), budget(48, Place.GPU, is_used=False), budget(8, Place.RAM))


def test_what_does_not_fit_now_says_where_to_look():
    codes = fit(wanted(10), budget(16, available_gib=5))
    assert codes[1] == (
        "not-now",
        'Now only 5.0 GiB can be had; "autotunectl hardware" tells which applications to close.',
    )


def test_a_smaller_cache_may_let_it_fit():
    whole_bytes = 4.55
    ((_, text),) = fit(wanted(facts=FACTS), budget(whole_bytes))
    assert "4,096 tokens in Q8_0" in text
    with pytest.raises(ModelTooLarge):
        fit(wanted(facts=FACTS), budget(whole_bytes), defaults=replace(DEFAULTS, kv_cache="f16"))


@pytest.mark.parametrize("budgets", [(), (budget(0),), (budget(8, is_used=False),)])
def test_where_nothing_is_known_of_memory_nothing_is_refused(budgets):
    assert fit(wanted(100), *budgets) == []


@given(
    st.floats(0.1, 100),
    st.floats(0.1, 100),
    st.floats(0.1, 100),
    st.floats(0, 100),
    st.sampled_from([None, FACTS]),
)
def test_more_memory_never_refuses_and_more_weights_never_fit_what_did_not(gib, more, ram, more_ram, facts):
    def fits(weights_gib, capacity_gib):
        known = None if facts is None else replace(facts, weights_bytes=int(weights_gib * GIB))
        try:
            fit(wanted(weights_gib, known), budget(capacity_gib, Place.RAM))
        except ModelTooLarge:
            return False
        return True

    if fits(gib, ram):
        assert fits(gib, ram + more_ram)
    if fits(gib + more, ram):
        assert fits(gib, ram)
