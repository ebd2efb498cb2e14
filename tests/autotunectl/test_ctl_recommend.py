"""autotunectl recommend: the best, the others, or what would be needed."""

from __future__ import annotations

import json

import pytest
from autotune.registry import USE_CASES
from autotune.v1 import registry_service_pb2

from autotunectl.commands import recommend
from autotunectl.recommendations import choice_text, render
from tests.fakes.download_messages import reason, recommendation, registry_model


def test_the_best_with_its_reasons_then_the_others(ctl, daemon):
    moe = registry_model(
        "qwen3-30b",
        name="Qwen3 30B A3B",
        parameters_count=30_500_000_000,
        active_parameters_count=3_300_000_000,
    )
    here = recommendation("x", model=moe, installed_as="qwen3:30b", estimated_tokens_per_second=0)
    daemon.recommendations = [recommendation(), here]
    result = ctl("recommend")
    assert (result.status, result.err) == (0, "")
    assert result.out == (
        "Best for chat: Qwen3 8B\n"
        "  size     5.0 GiB as Q4_K_M, 8.2B parameters\n"
        "  license  Apache-2.0\n"
        "  speed    about 23 tokens/s, estimated\n"
        "  memory   6.0 GiB of RAM with a context of 8,192 tokens\n"
        "  why      It scored best of the 12 models that fit.\n"
        "  get it   autotunectl pull qwen3:8b\n"
        "\n"
        "Or: Qwen3 30B A3B, installed\n"
        "  size     5.0 GiB as Q4_K_M, 30.5B parameters, 3.3B of them for each token\n"
        "  license  Apache-2.0\n"
        "  speed    not estimated\n"
        "  memory   6.0 GiB of RAM with a context of 8,192 tokens\n"
        "  why      It scored best of the 12 models that fit.\n"
        "  talk     autotunectl chat --model qwen3:30b\n"
        "\n"
        "For all of them:\n"
        "  RAM gives 41 GB/s, as was measured.\n"
    )


@pytest.mark.parametrize("use_case", USE_CASES)
def test_each_use_is_asked_for_by_name(ctl, daemon, use_case):
    assert ctl("recommend", "--for", use_case).out.startswith(f"Best for {use_case}: ")
    assert daemon.requests[-1].use_case == USE_CASES[use_case]


def test_the_uses_are_those_of_the_library():
    assert set(recommend.USE_CASES) == set(USE_CASES)


def test_recommend_as_json(ctl, daemon):
    printed = json.loads(ctl("recommend", "--for", "coding", "--json").out)
    assert printed["use_case"] == "coding"
    assert printed["recommendations"][0]["pull_name"] == "qwen3:8b"
    assert printed["recommendations"][0]["installed_as"] == ""
    assert printed["reasons"][0]["code"] == "machine"


def test_where_nothing_fits_it_says_what_would_be_needed(ctl, daemon):
    daemon.recommendations = []
    daemon.recommend_reasons = [reason("smallest", "The smallest one needs 700.0 MiB.")]
    result = ctl("recommend")
    assert (result.status, result.out) == (
        0,
        "None of the known models fits into this machine.\n"
        "  RAM      a model may take 16.0 GiB\n"
        "  why      The smallest one needs 700.0 MiB.\n",
    )


def test_a_sentence_is_broken_and_a_command_is_not(ctl, daemon):
    sentence = "It scored best of the 12 models that fit, and answers faster than most people read."
    name = "hf:a-publisher-with-a-long-name/A-Repository-With-A-Name-That-Has-No-End-GGUF:Q4_K_M"
    daemon.recommendations = [recommendation(name, reasons=[reason("score", sentence)])]
    daemon.recommend_reasons = [reason("all", sentence)]
    text = ctl("recommend").out
    assert [line for line in text.splitlines() if len(line) > 80] == [f"  get it   autotunectl pull {name}"]
    assert " ".join(text.split()).count(sentence) == 2


def test_what_a_reason_tells_is_told_once():
    reasons = [
        reason("quality", "It scores 41 of 100."),
        reason("fit", "It takes 6.0 GiB of the 16.0 GiB."),
        reason("speed", "It answers at about 23 tokens/s, by estimate."),
        reason("slower", "Another one is slower."),
    ]
    text = render(
        registry_service_pb2.RecommendModelsResponse(recommendations=[recommendation(reasons=reasons)]),
        "chat",
    )
    assert text == (
        "Best for chat: Qwen3 8B\n"
        "  size     5.0 GiB as Q4_K_M, 8.2B parameters\n"
        "  license  Apache-2.0\n"
        "  quality  It scores 41 of 100.\n"
        "  memory   It takes 6.0 GiB of the 16.0 GiB.\n"
        "  speed    It answers at about 23 tokens/s, by estimate.\n"
        "  why      Another one is slower.\n"
        "  get it   autotunectl pull qwen3:8b\n"
    )


def test_a_choice_is_numbered_with_the_name_of_each():
    here = recommendation("qwen3:4b", installed_as="qwen3:4b", estimated_tokens_per_second=4.26)
    assert choice_text([recommendation(), here, recommendation("x", estimated_tokens_per_second=0)]) == (
        "#  MODEL        SIZE  ESTIMATED SPEED  NAME\n"
        "1  Qwen3 8B  5.0 GiB      23 tokens/s  qwen3:8b\n"
        "2  Qwen3 8B  5.0 GiB     4.3 tokens/s  qwen3:4b (installed)\n"
        "3  Qwen3 8B  5.0 GiB                -  x\n"
    )


def test_a_name_in_a_command_is_one_word_to_a_shell():
    response = registry_service_pb2.RecommendModelsResponse(recommendations=[recommendation("x; rm -rf ~")])
    assert "  get it   autotunectl pull 'x; rm -rf ~'\n" in render(response, "chat")


def test_hostile_texts_cannot_steer_the_terminal():
    hostile = recommendation("a\x1b[2J", model=registry_model(name="evil\x1b[2J\n", license="\x07"))
    response = registry_service_pb2.RecommendModelsResponse(
        recommendations=[hostile], reasons=[reason("x", "y\x1b[2J")]
    )
    for text in (render(response, "chat"), choice_text([hostile])):
        assert not {"\x1b", "\x07"} & set(text)
