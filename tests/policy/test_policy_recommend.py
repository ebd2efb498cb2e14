"""How models are scored and chosen: fit, speed, license, what is here, and which alternatives."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from autotuned.policy.download_fit import Wanted, checked
from autotuned.policy.places import Place
from autotuned.policy.quality import quality_of
from autotuned.policy.recommend import (
    INSTALLED_BONUS,
    RESTRICTED_MALUS,
    is_able,
    pull_name_of,
    recommend,
    suits,
)
from autotuned.policy.recommendation import is_permissive
from autotuned.policy.registry_facts import facts_of
from autotuned.policy.use_cases import DEMANDS, UseCase
from tests.examples import DEFAULTS
from tests.policy.invented import (
    GIB,
    LAYERS,
    MEMORY,
    budget,
    budgets,
    circumstances,
    download,
    model,
    models,
    ranked,
    thinking,
)

CHAT = DEMANDS[UseCase.CHAT]


def picks_of(found, *places, use_case=UseCase.CHAT, installed=None):
    return recommend(found, use_case, circumstances(*places, installed=installed)).picks


def ids(picks):
    return [pick.model.id for pick in picks]


def best_of(*args, **options):
    return picks_of(*args, **options)[0]


def test_the_better_of_two_that_fit_and_are_fast_is_best():
    assert ids(picks_of([model("worse", score=50), model("better", score=70)], budget(16))) == [
        "better",
        "worse",
    ]


def test_what_does_not_fit_with_the_context_of_the_use_is_not_recommended():
    """1 GiB of cache on top of the 4 GiB of weights, and the computation."""
    found = [model("large", gib=4, score=70), model("small", gib=1, score=40)]
    assert ids(picks_of(found, budget(5.5))) == ["large", "small"]
    assert ids(picks_of(found, budget(4.4))) == ["small"]
    assert ids(picks_of(found, budget(5.5), use_case=UseCase.AGENTS)) == ["small"]


def test_a_smaller_cache_lets_a_model_fit_that_would_not_otherwise():
    whole, small = best_of([model("m")], budget(6)), best_of([model("m")], budget(5))
    assert (whole.smaller_cache, small.smaller_cache) == (False, True)
    assert small.footprint.kv_cache_bytes == whole.footprint.kv_cache_bytes * 34 // 64
    assert small.footprint.total_bytes <= 5 * GIB < whole.footprint.total_bytes


def test_a_cache_that_is_configured_does_not_shrink():
    where = replace(circumstances(budget(5)), defaults=replace(DEFAULTS, kv_cache="f16"))
    assert recommend([model("m")], UseCase.CHAT, where).picks == ()


def test_the_context_is_at_most_the_models_own():
    pick = best_of([model("m", train_context_tokens=4096)], budget(16))
    assert pick.context_tokens == 4096
    assert best_of([model("m", train_context_tokens=0)], budget(16)).context_tokens == 8192


def test_nothing_fits_and_nothing_is_recommended():
    advice = recommend([model("m")], UseCase.CHAT, circumstances(budget(2)))
    assert advice.picks == ()
    assert [reason.code for reason in advice.reasons] == ["smallest"]


def test_a_mixture_is_as_fast_as_its_active_parameters():
    dense = model("dense", gib=16, score=62)
    mixture = replace(
        model("mixture", gib=16, score=60), active_parameters_count=dense.parameters_count // 10
    )
    slow, fast = budget(32, gigabytes_per_second=60), budget(32, gigabytes_per_second=2000)
    assert ids(picks_of([dense, mixture], slow)) == ["mixture", "dense"]
    assert ids(picks_of([dense, mixture], fast)) == ["dense", "mixture"]
    picks = picks_of([dense, mixture], slow)
    assert picks[0].tokens_per_second > 4 * picks[1].tokens_per_second


def test_a_better_model_that_is_too_slow_is_not_the_best():
    found = [model("slow", gib=40, score=70), model("quick", gib=4, score=60)]
    assert ids(picks_of(found, budget(64, gigabytes_per_second=60))) == ["quick", "slow"]


@pytest.mark.parametrize("use_case", UseCase)
def test_at_the_half_speed_a_model_is_worth_half(use_case):
    demand = DEMANDS[use_case]
    assert suits(demand.half_speed, demand, thinks=False) == 0.5
    assert suits(demand.half_speed * demand.thinking_ratio, demand, thinks=True) == 0.5
    assert suits(0, demand, thinks=False) == 0.0


@given(st.sampled_from(UseCase), st.floats(0.01, 1e5), st.floats(0, 1e5), st.booleans())
def test_more_speed_never_suits_less(use_case, speed, more, thinks):
    demand = DEMANDS[use_case]
    assert 0 < suits(speed, demand, thinks=thinks) <= suits(speed + more, demand, thinks=thinks) <= 1


def test_what_an_engine_that_leaves_the_gpu_alone_would_run_is_held_against_the_ram():
    files = {"huggingface": "acme/files"}
    found = [
        model("server", gib=4, score=50),
        model("files", gib=4, score=60, names=files, sizes=(download(4, of="huggingface"),)),
    ]
    where = circumstances(budget(24, Place.GPU), budget(27, Place.RAM, gigabytes_per_second=40))
    both = recommend(found, UseCase.CHAT, where).picks
    assert [(pick.model.id, pick.budget.place) for pick in both] == [
        ("files", Place.GPU),
        ("server", Place.GPU),
    ]
    one = recommend(found, UseCase.CHAT, replace(where, beside_gpu=frozenset(files))).picks
    assert {pick.model.id: pick.budget.place for pick in one} == {"server": Place.GPU, "files": Place.RAM}


def test_a_gpu_of_unknown_bandwidth_is_not_left_for_the_processor():
    unknown, ram = (
        budget(24, Place.GPU, gigabytes_per_second=0),
        budget(27, Place.RAM, gigabytes_per_second=60),
    )
    found = [model("large", gib=16, score=62), model("small", gib=4, score=50)]
    picks = picks_of(found, unknown, ram)
    assert ids(picks) == ["large", "small"]
    assert [pick.budget.place for pick in picks] == [Place.GPU, Place.GPU]
    assert [pick.tokens_per_second for pick in picks] == [0, 0]


@pytest.mark.parametrize("place", Place)
def test_memory_of_unknown_bandwidth_is_taken_to_be_slow(place):
    found = [model("large", gib=40, score=70), model("small", gib=4, score=60)]
    picks = picks_of(found, budget(64, place, gigabytes_per_second=0))
    assert ids(picks) == ["small", "large"]


def test_of_two_alike_the_one_that_writes_no_thoughts_is_quicker_done():
    found = [thinking("thinks"), model("tells")]
    assert ids(picks_of(found, budget(16, gigabytes_per_second=40))) == ["tells", "thinks"]


def test_reasoning_needs_a_model_that_thinks():
    found = [model("tells", score=70), thinking("thinks", score=50)]
    assert ids(picks_of(found, budget(16), use_case=UseCase.REASONING)) == ["thinks"]


def test_agents_need_a_model_that_calls_tools():
    found = [model("talks", score=70, calls_tools=False), model("acts", score=50)]
    assert ids(picks_of(found, budget(16), use_case=UseCase.AGENTS)) == ["acts"]


def test_what_nobody_scored_and_what_has_no_layers_is_not_recommended():
    assert not is_able(model("m", score=None), CHAT)
    assert not is_able(model("m", layer_groups=()), CHAT)
    assert is_able(model("m", score=None, ranks=ranked(chat=5)), CHAT)
    assert not is_able(model("m", score=None, ranks=ranked(coding=5)), CHAT)


def test_a_use_is_judged_by_its_own_kind_of_task():
    found = [
        model("coder", ranks=ranked(coding=1, chat=90)),
        model("talker", ranks=ranked(coding=90, chat=1)),
    ]
    assert best_of(found, budget(16), use_case=UseCase.CODING).model.id == "coder"
    assert best_of(found, budget(16)).model.id == "talker"


def test_a_license_with_restrictions_costs_a_little():
    found = [model("free"), model("bound", license="Gemma terms")]
    free, bound = picks_of(found, budget(16))
    assert free.model.id == "free"
    assert bound.score == pytest.approx(free.score * RESTRICTED_MALUS)


@pytest.mark.parametrize(
    ("license_name", "expected"),
    [
        ("Apache-2.0", True),
        ("MIT", True),
        ("bsd-3", True),
        ("Llama 3.3", False),
        ("", False),
        ("MIT and Llama 3.3 Community", False),
        ("MIT and Apache-2.0", True),
    ],
)
def test_which_licenses_ask_for_little(license_name, expected):
    assert is_permissive(license_name) is expected


def test_what_is_here_already_is_preferred_a_little():
    found = [model("a"), model("b")]
    here, absent = picks_of(found, budget(16), installed={"b": "b:latest"})
    assert (here.model.id, here.installed_as, absent.installed_as) == ("b", "b:latest", "")
    assert here.score == pytest.approx(absent.score * INSTALLED_BONUS)


def test_beside_a_gpu_the_ram_has_to_be_worth_it():
    fits_gpu, needs_ram = model("on-gpu", gib=4, score=60), model("in-ram", gib=10, score=61)
    gpu, ram = budget(8, Place.GPU), budget(64, Place.RAM)
    assert ids(picks_of([fits_gpu, needs_ram], gpu, ram)) == ["on-gpu", "in-ram"]
    assert best_of([fits_gpu, needs_ram], gpu, ram).budget is gpu
    much_better = replace(needs_ram, overall_score=90)
    assert best_of([fits_gpu, much_better], gpu, ram).budget is ram


def test_a_gpu_that_no_engine_uses_runs_nothing():
    gpu, ram = budget(48, Place.GPU, is_used=False), budget(8, Place.RAM)
    found = [model("small"), model("large", gib=20, score=90)]
    assert ids(picks_of(found, gpu, ram)) == ["small"]
    assert best_of(found, gpu, ram).budget is ram


def test_the_download_with_the_higher_score_is_chosen():
    """Eight bits keep more quality, four are faster: on fast memory the first counts, on slow the other."""
    both = model(
        "m",
        names={"ollama": "m", "huggingface": "acme/m-GGUF"},
        sizes=(download(4), download(8, of="huggingface", quantization="Q8_0")),
    )
    assert best_of([both], budget(16, gigabytes_per_second=1500)).pull_name == "hf:acme/m-GGUF:Q8_0"
    assert best_of([both], budget(16, gigabytes_per_second=60)).pull_name == "m"
    assert best_of([both], budget(6, gigabytes_per_second=1500)).pull_name == "m"


def test_names_that_get_a_download():
    sizes = (
        download(4),
        download(8, quantization="Q8_0"),
        download(4, of="huggingface"),
        download(4, of="mlx", quantization="4bit"),
    )
    names = {"ollama": "m:7b", "huggingface": "acme/m-GGUF", "mlx": "mlx-community/m-4bit"}
    whole = model("m", names=names, sizes=sizes)
    assert [pull_name_of(whole, size) for size in sizes] == [
        "m:7b",
        "",
        "hf:acme/m-GGUF:Q4_K_M",
        "hf:mlx-community/m-4bit",
    ]
    assert pull_name_of(replace(whole, names={}), sizes[0]) == ""


def test_a_model_that_only_mlx_has_is_not_recommended():
    only = model("m", names={"mlx": "mlx-community/m"}, sizes=(download(4, of="mlx"),))
    assert picks_of([only], budget(16)) == ()


def test_one_alternative_is_of_another_maker_one_lighter():
    found = [
        model("best", gib=8, score=70),
        model("next", gib=8, score=69),
        model("other", gib=8, score=50, publisher="Umbrella"),
        model("light", gib=2, score=45),
    ]
    assert ids(picks_of(found, budget(16))) == ["best", "other", "light"]


def test_without_others_the_next_best_are_the_alternatives():
    found = [model(f"m{number}", gib=8, score=70 - number) for number in range(5)]
    assert ids(picks_of(found, budget(16))) == ["m0", "m1", "m2"]


def test_equal_scores_are_in_the_order_of_their_names():
    assert ids(picks_of([model("b"), model("c"), model("a")], budget(16))) == ["a", "b", "c"]


drawn_models = st.lists(models(), max_size=8, unique_by=lambda each: each.id)


@settings(max_examples=60)
@given(drawn_models, budgets(), st.sampled_from(UseCase))
def test_what_is_recommended_fits_where_an_engine_computes_and_the_best_comes_first(found, places, use_case):
    demand = DEMANDS[use_case]
    advice = recommend(found, use_case, circumstances(*places))
    assert len(advice.picks) <= 3
    assert len({pick.model.id for pick in advice.picks}) == len(advice.picks)
    for pick in advice.picks:
        assert pick.budget in places
        assert pick.budget.is_used
        assert pick.footprint.total_bytes <= pick.budget.capacity_bytes
        assert is_able(pick.model, demand)
        assert pick.quality == quality_of(pick.model, demand)
        assert 0 <= pick.score <= advice.picks[0].score <= 100
        assert pick.pull_name
        assert pick.reasons
        assert all(reason.text.endswith(".") and "\n" not in reason.text for reason in pick.reasons)


@settings(max_examples=60)
@given(drawn_models, budgets(), st.integers(0, 64 * GIB), st.sampled_from(UseCase))
def test_more_capacity_never_recommends_what_scores_lower(found, places, more_bytes, use_case):
    larger = [replace(each, capacity_bytes=each.capacity_bytes + more_bytes) for each in places]
    before, after = picks_of(found, *places, use_case=use_case), picks_of(found, *larger, use_case=use_case)
    assert not before or after[0].score >= before[0].score


@settings(max_examples=60)
@given(drawn_models, budgets(), st.sampled_from(UseCase))
def test_what_is_recommended_may_be_pulled(found, places, use_case):
    """What says that it fits and what refuses a download reckon alike."""
    for pick in picks_of(found, *places, use_case=use_case):
        wanted = Wanted(
            model_id=pick.model.id,
            weights_bytes=pick.size.size_bytes,
            facts=facts_of(pick.model, pick.size),
        )
        checked(wanted, places, DEFAULTS, MEMORY, allow_too_large=False)


def test_windows_that_keep_their_size_are_no_reason_to_refuse_what_was_recommended():
    """8,192 tokens in Q8_0 take less than 4,096 in F16 where most layers have a window."""
    windows = replace(LAYERS[0], layers_count=30, window_tokens=4096)
    found = model("m", layer_groups=(windows, replace(LAYERS[0], layers_count=2)))
    (pick,) = picks_of([found], budget(5.1))
    assert pick.smaller_cache
    wanted = Wanted(model_id="m", weights_bytes=4 * GIB, facts=facts_of(found, pick.size))
    reasons = checked(wanted, (pick.budget,), DEFAULTS, MEMORY, allow_too_large=False)
    assert "tokens in Q8_0" in reasons[0].text
