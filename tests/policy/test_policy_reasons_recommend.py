"""The sentences of a recommendation, with the numbers that decided."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuned.policy.places import GPU_UNUSED, Place
from autotuned.policy.reasons_recommend import rate
from autotuned.policy.recommend import recommend
from autotuned.policy.use_cases import UseCase
from tests.policy.invented import budget, circumstances, model, ranked


def advice_of(found, *places, use_case=UseCase.CHAT):
    return recommend(found, use_case, circumstances(*places))


def told(pick):
    return {reason.code: reason.text for reason in pick.reasons}


def test_quality_is_told_with_score_and_place():
    scored = model("m", score=61.6, ranks=ranked(chat=7))
    (pick,) = advice_of([scored], budget(16)).picks
    assert told(pick)["quality"] == (
        "It scores 62 of 100 over many tests and is number 7 of 100 models at chat."
    )


def test_a_place_alone_is_told_alone():
    (pick,) = advice_of([model("m", score=None, ranks=ranked(chat=7))], budget(16)).picks
    assert told(pick)["quality"] == "It is number 7 of 100 models at chat."


def test_fit_is_told_with_what_the_context_takes_of_it():
    (pick,) = advice_of([model("m")], budget(16)).picks
    text = told(pick)["fit"]
    assert text.startswith("It takes 5.")
    assert text.endswith(
        " GiB of the 16.0 GiB that a model may take of unified memory: 1.0 GiB of it for 8,192 tokens of "
        "context."
    )


def test_a_smaller_cache_is_told():
    (pick,) = advice_of([model("m")], budget(5)).picks
    assert told(pick)["fit"].endswith("544.0 MiB of it for 8,192 tokens of context in Q8_0.")


def test_a_speed_is_called_an_estimate_and_a_mixture_explained():
    dense = model("dense")
    (pick,) = advice_of([dense], budget(16)).picks
    speed = rate(pick.tokens_per_second)
    assert told(pick)["speed"] == f"It answers at about {speed}, by estimate."
    mixture = replace(dense, parameters_count=35_500_000_000, active_parameters_count=3_000_000_000)
    text = told(advice_of([mixture], budget(16)).picks[0])["speed"]
    assert ", by estimate: " in text
    assert " 3 of its 35.5 billion parameters" in text


def test_why_a_better_one_is_not_the_best():
    found = [model("slow", gib=40, score=70), model("quick", score=60), model("huge", gib=70, score=80)]
    best = told(advice_of(found, budget(64, gigabytes_per_second=60)).picks[0])
    assert best["slower"].startswith("Slow fits, too, and is better, but would answer at about 1.")
    assert best["too-large"].startswith("The next better one, Huge, would need 70.")


def test_of_those_that_are_too_large_the_smallest_is_told():
    found = [model("m"), model("huge", gib=90, score=90), model("large", gib=20, score=70)]
    assert "Large" in told(advice_of(found, budget(16)).picks[0])["too-large"]


def test_what_is_worse_or_has_no_name_to_get_it_by_is_not_missed():
    found = [model("m"), model("worse", gib=20, score=50), model("x", gib=20, score=90, names={})]
    assert "too-large" not in told(advice_of(found, budget(16)).picks[0])


def test_an_alternative_says_what_it_has_over_the_best():
    found = [model("best", gib=8, score=70), model("light", gib=2, score=45, publisher="Umbrella")]
    best, light = advice_of(found, budget(16, gigabytes_per_second=200)).picks
    assert "alternative" not in told(best)
    text = told(light)["alternative"]
    assert text.startswith("Against Best it comes from Umbrella, is about ")
    assert " times as fast and takes 6." in text
    assert text.endswith(" GiB less memory.")


def test_an_alternative_says_what_it_lacks():
    found = [model("best", gib=2, score=70), model("heavy", gib=6, score=71, license="Gemma terms")]
    _, heavy = advice_of(found, budget(16, gigabytes_per_second=40)).picks
    text = told(heavy)["alternative"]
    assert text.startswith("Against Best it is slower (about ")
    assert text.endswith(" GiB more memory.")


def test_an_alternative_that_is_much_alike_scores_less():
    _, other = advice_of([model("a"), model("b")], budget(16)).picks
    assert told(other)["alternative"] == "Against A it scores a little less."


def test_what_does_not_fit_now_says_what_can_be_had():
    (pick,) = advice_of([model("m")], budget(16, available_gib=3)).picks
    assert told(pick)["not-now"] == (
        'Now only 3.0 GiB can be had; "autotunectl hardware" tells which applications to close.'
    )
    assert "not-now" not in told(advice_of([model("m")], budget(16)).picks[0])


def test_what_holds_for_all_is_told_once():
    advice = advice_of([model("a", license="Gemma terms"), model("b")], budget(16))
    assert [reason.text for reason in advice.reasons] == [
        "Read the license before other than private use: A (Gemma terms).",
        "Speeds are estimates from memory bandwidth and the weights that compute a token, for the beginning "
        "of a conversation.",
    ]


def test_a_license_that_nobody_tells_is_called_unknown():
    advice = advice_of([model("a", license="")], budget(16))
    assert advice.reasons[0].text == "Read the license before other than private use: A (unknown)."


def test_an_unknown_bandwidth_is_told_instead_of_a_speed():
    advice = advice_of([model("a")], budget(16, gigabytes_per_second=0))
    assert [(reason.code, reason.text) for reason in advice.reasons] == [
        (
            "bandwidth-unknown",
            "Speeds cannot be estimated: the bandwidth of the memory is unknown. It was taken to be low.",
        )
    ]
    assert "speed" not in told(advice.picks[0])


def test_a_gpu_that_lies_idle_is_told_even_if_nothing_fits():
    idle = replace(budget(24, Place.GPU, is_used=False), reasons=(GPU_UNUSED,))
    assert advice_of([model("m")], idle, budget(1, Place.RAM)).reasons[-1] == GPU_UNUSED
    assert advice_of([model("m")], idle, budget(16, Place.RAM)).reasons[0] == GPU_UNUSED


def test_where_nothing_fits_the_smallest_and_what_it_would_need_are_told():
    found = [model("large", gib=20), model("small", gib=3), model("unscored", gib=1, score=None)]
    (reason,) = advice_of(found, budget(2)).reasons
    assert reason.text.startswith("The smallest of them, Small, would need 3.")
    assert advice_of([], budget(2)).reasons == ()


@pytest.mark.parametrize(
    ("speed", "text"), [(3.14, "3.1 tokens/s"), (31.4, "31 tokens/s"), (0.04, "0.0 tokens/s")]
)
def test_rates_have_two_digits_that_count(speed, text):
    assert rate(speed) == text
