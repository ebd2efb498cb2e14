"""Names of Ollama's library as repositories of mlx-community, which exist under these names."""

from __future__ import annotations

import string

import hypothesis.strategies as st
import pytest
from hypothesis import given

from autotuned.core.download import Reference, Source
from autotuned.policy.mlx_families import FAMILIES, FULL_SIZES, RENEWED, TAGS, USUAL_TAGS
from autotuned.policy.mlx_names import resolved
from autotuned.policy.references import parsed
from autotuned.storage.registry import packaged_models
from tests.policy.invented import model

# Repositories that others load by these names.
REPOSITORIES = {
    "codestral": ["Codestral-22B-v0.1-4bit"],
    "deepseek-r1": ["DeepSeek-R1-0528-Qwen3-8B-4bit"],
    "deepseek-r1:1.5b": ["DeepSeek-R1-Distill-Qwen-1.5B-4bit"],
    "deepseek-r1:8b": ["DeepSeek-R1-0528-Qwen3-8B-4bit"],
    "deepseek-r1:8b-0528-qwen3-q8_0": ["DeepSeek-R1-0528-Qwen3-8B-8bit"],
    "deepseek-r1:8b-llama-distill-q4_K_M": ["DeepSeek-R1-Distill-Llama-8B-4bit"],
    "deepseek-r1:14b": ["DeepSeek-R1-Distill-Qwen-14B-4bit"],
    "deepseek-r1:14b-qwen-distill-q4_K_M": ["DeepSeek-R1-Distill-Qwen-14B-4bit"],
    "deepseek-r1:70b": ["DeepSeek-R1-Distill-Llama-70B-4bit"],
    "deepseek-coder-v2": [
        "DeepSeek-Coder-V2-Lite-Instruct-4bit-mlx",
        "DeepSeek-Coder-V2-Lite-Instruct-4bit",
    ],
    "devstral": ["Devstral-Small-2505-4bit"],
    "devstral:24b-small-2505-q8_0": ["Devstral-Small-2505-8bit"],
    "devstral-small-2:24b": ["Devstral-Small-2-24B-Instruct-2512-4bit"],
    "gemma2:9b": ["gemma-2-9b-it-4bit"],
    "gemma3:4b": ["gemma-3-4b-it-4bit"],
    "gemma3:27b-it-qat": ["gemma-3-27b-it-qat-4bit"],
    "gemma3n:e4b": ["gemma-3n-E4B-it-lm-4bit", "gemma-3n-E4B-it-4bit"],
    "gemma4:26b": ["gemma-4-26b-a4b-it-4bit", "gemma-4-26B-A4B-it-4bit"],
    "glm-4.7-flash:q8_0": ["GLM-4.7-Flash-8bit"],
    "gpt-oss:20b": ["gpt-oss-20b-MXFP4-Q8", "gpt-oss-20b-MXFP4-Q4"],
    "granite4": ["granite-4.0-micro-4bit"],
    "granite4:tiny-h": ["granite-4.0-h-tiny-4bit"],
    "llama3:8b": ["Meta-Llama-3-8B-Instruct-4bit"],
    "llama3.1:8b-instruct-q8_0": ["Meta-Llama-3.1-8B-Instruct-8bit", "Llama-3.1-8B-Instruct-8bit"],
    "llama3.2": ["Llama-3.2-3B-Instruct-4bit"],
    "llama3.2:1b-instruct-fp16": ["Llama-3.2-1B-Instruct-bf16"],
    "llama3.3": ["Llama-3.3-70B-Instruct-4bit"],
    "llama4:scout": ["Llama-4-Scout-17B-16E-Instruct-4bit"],
    "magistral:24b-small-2506-q8_0": ["Magistral-Small-2506-8bit"],
    "ministral-3:3b": ["Ministral-3-3B-Instruct-2512-4bit"],
    "mistral": ["Mistral-7B-Instruct-v0.3-4bit"],
    "mistral:7b-instruct-v0.2-q4_K_M": ["Mistral-7B-Instruct-v0.2-4bit"],
    "mistral-nemo:12b": ["Mistral-Nemo-Instruct-2407-4bit"],
    "mistral-small:24b": ["Mistral-Small-24B-Instruct-2501-4bit"],
    "mistral-small3.2:24b-instruct-2506-q8_0": ["Mistral-Small-3.2-24B-Instruct-2506-8bit"],
    "mixtral:8x7b": ["Mixtral-8x7B-Instruct-v0.1-4bit"],
    "nemotron-3-nano:30b": ["NVIDIA-Nemotron-3-Nano-30B-A3B-4bit"],
    "phi4": ["phi-4-4bit"],
    "phi4-mini": ["Phi-4-mini-instruct-4bit"],
    "phi4-reasoning:14b-plus-q4_K_M": ["Phi-4-reasoning-plus-4bit"],
    "qwen2.5:0.5b": ["Qwen2.5-0.5B-Instruct-4bit"],
    "qwen2.5-coder:7b": ["Qwen2.5-Coder-7B-Instruct-4bit"],
    "qwen3": ["Qwen3-8B-4bit"],
    "qwen3:8b": ["Qwen3-8B-4bit"],
    "qwen3:8B": ["Qwen3-8B-4bit"],
    "qwen3:4b": ["Qwen3-4B-Thinking-2507-4bit"],
    "qwen3:4b-q8_0": ["Qwen3-4B-8bit"],
    "qwen3:4b-instruct-2507-q8_0": ["Qwen3-4B-Instruct-2507-8bit"],
    "qwen3:30b-a3b": ["Qwen3-30B-A3B-Thinking-2507-4bit"],
    "qwen3:30b-a3b-q4_K_M": ["Qwen3-30B-A3B-4bit"],
    "qwen3-coder:30b": ["Qwen3-Coder-30B-A3B-Instruct-4bit"],
    "qwen3-vl:8b": ["Qwen3-VL-8B-Thinking-4bit"],
    "qwen3.5:35b": ["Qwen3.5-35B-A3B-4bit"],
    "qwq": ["QwQ-32B-4bit"],
    "smollm2:360m": ["SmolLM2-360M-Instruct-4bit", "SmolLM2-360M-Instruct"],
}


def names_of(typed, registry=()):
    return [reference.name for reference in resolved(parsed(typed), registry)[0]]


@pytest.mark.parametrize("typed", REPOSITORIES)
def test_the_rule_gives_the_names_that_are_in_use(typed):
    assert names_of(typed) == [f"mlx-community/{name}" for name in REPOSITORIES[typed]]


@pytest.mark.parametrize(
    "typed",
    [
        "qwen2.5-coder:7b-base-q8_0",
        "llama3.1:8b-text-q4_0",
        "gpt-oss:20b-cloud",
        "mistral-small3.2:24b-instruct-2501-q8_0",
        "nobody-has-this:8b",
        "ada/qwen3:8b",
        "localhost:5000/library/qwen3:8b",
    ],
)
def test_another_model_is_never_offered_in_place_of_the_one_that_was_named(typed):
    references, reasons = resolved(parsed(typed), ())
    assert references == ()
    assert [reason.text for reason in reasons] == ["Neither the registry nor a rule knows it."]


def test_what_the_registry_names_comes_first_and_none_twice():
    listed = model("m", names={"ollama": "qwen3:8b", "mlx": "lab/Qwen3-8B-MLX"})
    references, reasons = resolved(parsed("qwen3:8b"), [listed])
    assert [each.name for each in references] == ["lab/Qwen3-8B-MLX", "mlx-community/Qwen3-8B-4bit"]
    assert [reason.text for reason in reasons] == [
        "The registry names lab/Qwen3-8B-MLX.",
        "By the rule for names of mlx-community it is mlx-community/Qwen3-8B-4bit.",
    ]
    same = model("m", names={"ollama": "qwen3:8b", "mlx": "mlx-community/Qwen3-8B-4bit"})
    assert names_of("qwen3:8b", [same]) == ["mlx-community/Qwen3-8B-4bit"]


def test_a_repository_stands_for_itself():
    reference = parsed("hf:mlx-community/Qwen3-8B-4bit")
    references, reasons = resolved(reference, ())
    assert references == (reference,)
    assert reasons[0].text == '"mlx-community/Qwen3-8B-4bit" is a repository already.'


def test_two_rules_are_told_with_or():
    _, reasons = resolved(parsed("llama3.1:8b"), ())
    assert reasons[0].text.endswith(
        "it is mlx-community/Meta-Llama-3.1-8B-Instruct-4bit or mlx-community/Llama-3.1-8B-Instruct-4bit."
    )


def test_the_rule_agrees_with_what_the_packaged_registry_found():
    for each in packaged_models():
        listed, typed = each.names.get("mlx", ""), each.names.get("ollama", "")
        if typed and listed.startswith("mlx-community/") and (ruled := names_of(typed)):
            assert listed in ruled, typed


def test_the_tables_fit_together():
    families = {key.partition(" ")[0] for key in FAMILIES} | {key.partition(":")[0] for key in TAGS}
    assert set(USUAL_TAGS) <= families
    assert {key.partition(":")[0] for key in (*FULL_SIZES, *RENEWED)} <= families
    fields = {
        field
        for patterns in (*FAMILIES.values(), *TAGS.values(), *RENEWED.values())
        for pattern in patterns
        for _, field, _, _ in string.Formatter().parse(pattern)
        if field is not None
    }
    assert fields == {"size", "small", "bits"}
    assert all(names_of(family) for family in USUAL_TAGS)


tags = st.lists(
    st.sampled_from(["8b", "30b", "a3b", "e4b", "8x7b", "instruct", "it", "2507", "q4_K_M", "q8_0", "fp16", "4bit", "-", "{", "x"]),
    max_size=5,
).map("-".join)  # fmt: skip


@given(st.sampled_from(sorted({key.partition(" ")[0] for key in FAMILIES})), tags)
def test_whatever_the_tag_the_answer_is_of_names_each_once(family, tag):
    references, reasons = resolved(Reference(source=Source.OLLAMA_REGISTRY, name=f"{family}:{tag}"), ())
    names = [each.name for each in references]
    assert len(set(names)) == len(names)
    assert all(parsed(f"hf:{name}").source is Source.HUGGING_FACE for name in names)
    assert reasons
