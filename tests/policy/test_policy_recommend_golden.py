"""What is recommended for recorded machines: the best pick for each use, and why it is the right one.

The predecessor's own table, by RAM: 8 GB qwen3:4b; 16 GB qwen3:8b, coding qwen2.5-coder:7b; 24 GB qwen3:14b,
coding qwen2.5-coder:14b; 32 GB qwen3:30b-a3b; 64 GB and more qwen3:32b; reasoning deepseek-r1:14b. Its program
picked a 1.7 B model for every machine from 8 to 64 GB. Models that came since score higher at the same size.
"""

from __future__ import annotations

import pytest

from autotuned.core.memory import MemoryView, PressureTier
from autotuned.policy.places import Place, place_budgets
from autotuned.policy.recommend import recommend
from autotuned.policy.recommendation import Circumstances
from autotuned.policy.use_cases import UseCase
from autotuned.storage.registry import packaged_models
from tests.examples import DEFAULTS
from tests.machines import MACHINES

MODELS = packaged_models()
BY_KEY = {machine.key: machine for machine in MACHINES}

# Machine: chat, coding, reasoning, agents.
PICKS = {
    # 5.3 GiB for the GPU: models of 4 B fit with their context, those of 8 B do not.
    "mac-m1-8": ("qwen3.5-4b", "qwen3.5-4b", "qwen3.5-4b", "qwen3-4b-thinking-2507"),
    # 12 B fits and is the alternative, but 100 GB/s make it half as fast as people read code.
    "mac-m3-16": ("qwen3.5-4b", "qwen3.5-4b", "qwen3.5-4b", "qwen3.5-4b"),
    # 16 GiB hold gpt-oss 20b, a mixture that writes 28 tokens/s where 9 B dense writes 14.
    "mac-m4-24": ("gemma4-12b", "gpt-oss-20b", "qwen3.5-4b", "qwen3.5-4b"),
    # From 21 GiB on the mixtures with 3 to 4 B active parameters fit: quality of 30 B, speed of 4 B.
    "mac-m1-pro-32": ("gemma4-26b-a4b", "qwen3.5-35b-a3b", "gemma4-26b-a4b", "qwen3.5-35b-a3b"),
    # Dense 27 B would fit and is better, but 273 GB/s give it 12 tokens/s.
    "mac-m4-pro-64": ("gemma4-26b-a4b", "qwen3.6-35b-a3b", "gemma4-26b-a4b", "qwen3.6-35b-a3b"),
    # 546 GB/s make the best dense model fast enough; what is larger is not better.
    "mac-m4-max-128": ("qwen3.8-27b", "qwen3.8-27b", "qwen3.8-27b", "qwen3.8-27b"),
    # A processor with 38 GB/s: 4 B is what it can read fast enough, however much memory there is.
    "laptop-8": ("qwen3-4b-instruct-2507", "qwen3-4b-thinking-2507", "qwen3.5-4b", "lfm2.5-2.6b"),
    "laptop-16": ("qwen3-4b-instruct-2507", "qwen3-4b-thinking-2507", "qwen3.5-4b", "lfm2.5-2.6b"),
    # Mixtures again: 35 B in memory, 3 B read for a token.
    "laptop-32": ("qwen3.6-35b-a3b", "qwen3.6-35b-a3b", "qwen3.6-35b-a3b", "qwen3.6-35b-a3b"),
    "laptop-64": ("qwen3-coder-next", "qwen3.6-35b-a3b", "qwen3.6-35b-a3b", "qwen3-coder-next"),
    # The GPU holds 9 B with 8k to 32k tokens; a mixture in RAM beside it would read prompts slowly.
    "rtx-4060-8": ("qwen3.5-9b", "qwen3.5-9b", "qwen3.5-9b", "qwen3.5-9b"),
    "rtx-3060-12": ("gemma4-12b", "gemma4-12b", "qwen3.5-9b", "qwen3.5-9b"),
    "rtx-4060-ti-16": ("gemma4-12b", "gemma4-12b", "qwen3.5-9b", "qwen3.5-9b"),
    # Dense 27 B in 4 bits is made for 24 GB; more memory holds nothing better that is still fast.
    "rtx-4090-24": ("qwen3.8-27b", "qwen3.8-27b", "qwen3.8-27b", "qwen3.8-27b"),
    "rtx-3090-2x24": ("qwen3.8-27b", "qwen3.8-27b", "qwen3.8-27b", "qwen3.8-27b"),
    "rtx-a6000-48": ("qwen3.8-27b", "qwen3.8-27b", "qwen3.8-27b", "qwen3.8-27b"),
    "rx-7900-xtx-24": ("qwen3.8-27b", "qwen3.8-27b", "qwen3.8-27b", "qwen3.8-27b"),
    # Much memory of 256 GB/s: mixtures, the larger the better.
    "strix-halo-128": ("gemma4-26b-a4b", "qwen3.6-35b-a3b", "qwen3.5-122b-a10b", "qwen3-coder-next"),
}


def recommended(key, use_case, installed=None, *, uses_gpu=True):
    machine = BY_KEY[key]
    memory = MemoryView(reading=machine.memory, pressure=PressureTier.NORMAL)
    budgets = place_budgets(machine.hardware, memory, margin_bytes=1 << 30, uses_gpu=uses_gpu)
    circumstances = Circumstances(
        budgets=budgets, memory=memory, defaults=DEFAULTS, installed=installed or {}
    )
    return recommend(MODELS, use_case, circumstances)


def sentences(pick):
    return {reason.code: reason.text for reason in pick.reasons}


@pytest.mark.parametrize("key", PICKS)
def test_each_machine_gets_the_model_that_is_right_for_it(key):
    best = tuple(recommended(key, use_case).picks[0].model.id for use_case in UseCase)
    assert best == PICKS[key]


def test_every_recorded_machine_has_its_picks():
    assert set(PICKS) == set(BY_KEY)


@pytest.mark.parametrize("key", PICKS)
@pytest.mark.parametrize("use_case", UseCase)
def test_three_models_that_fit_and_can_be_pulled(key, use_case):
    picks = recommended(key, use_case).picks
    assert len({pick.model.id for pick in picks}) == 3
    for pick in picks:
        assert pick.pull_name
        assert pick.footprint.total_bytes <= pick.budget.capacity_bytes
        assert pick.score <= picks[0].score


@pytest.mark.parametrize("key", PICKS)
def test_nothing_below_two_billion_parameters_is_the_best_anywhere(key):
    best = [recommended(key, use_case).picks[0].model for use_case in UseCase]
    assert all(model.parameters_count > 2e9 for model in best)


def test_why_a_mixture_is_best_on_a_processor():
    best = recommended("laptop-32", UseCase.CODING).picks[0]
    told = sentences(best)
    assert told["speed"] == (
        "It answers at about 22 tokens/s, by estimate: a token takes 3 of its 35.5 billion parameters."
    )
    assert told["slower"] == ("Qwen3.8-27B fits, too, and is better, but would answer at about 3.6 tokens/s.")


def test_why_a_larger_one_is_not_for_this_machine():
    told = sentences(recommended("mac-m1-8", UseCase.CODING).picks[0])
    assert told["too-large"].startswith("The next better one, Qwen3.5-9B, would need 6.")
    assert told["not-now"].startswith("Now only 2.0 GiB can be had;")


def test_alternatives_say_what_they_have_over_the_best():
    _, other, lighter = recommended("rtx-4090-24", UseCase.CODING).picks
    assert "comes from Google" in sentences(other)["alternative"]
    assert "times as fast" in sentences(lighter)["alternative"]


def test_beside_a_gpu_that_no_engine_uses_the_processor_is_reckoned_with_and_that_is_said():
    found = recommended("rtx-4090-24", UseCase.CHAT, uses_gpu=False)
    assert {pick.budget.place for pick in found.picks} == {Place.RAM}
    assert "gpu-unused" in {reason.code for reason in found.reasons}


def test_what_is_here_already_comes_first_where_it_is_as_good():
    before = recommended("mac-m4-24", UseCase.CHAT).picks
    assert before[0].model.id == "gemma4-12b"
    installed = {before[1].pull_name: "qwen3.5:4b"}
    after = recommended("mac-m4-24", UseCase.REASONING, installed).picks[0]
    assert (after.model.id, after.installed_as) == ("qwen3.5-4b", "qwen3.5:4b")
