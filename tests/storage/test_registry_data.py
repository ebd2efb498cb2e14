"""The models that come with the package: complete, plausible, with a source for each figure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from autotuned.core.download import Source
from autotuned.policy.mlx_names import resolved
from autotuned.policy.quality import KEPT_RATIOS, quality_of
from autotuned.policy.recommend import HUGGING_FACE, OLLAMA, pull_name_of
from autotuned.policy.references import is_same, parsed
from autotuned.policy.registry_facts import MLX, facts_of, footprint_at
from autotuned.policy.use_cases import DEMANDS
from autotuned.storage.registry import packaged_models
from tests.examples import DEFAULTS
from tests.policy.invented import MEMORY

MODELS = packaged_models()
BY_ID = {model.id: model for model in MODELS}
each_model = pytest.mark.parametrize("model", MODELS, ids=BY_ID)

# Of these nothing that can be checked was found.
WITHOUT_LAYERS = {"magistral-small-24b"}
WITHOUT_CONTEXT = {"granite4-small-h", "magistral-small-24b"}
WITHOUT_VOCABULARY = {
    "deepseek-r1-1.5b",
    "gemma3-27b",
    "gemma3n-e2b",
    "granite4-micro-h",
    "granite4.1-30b",
    "granite4.1-8b",
    "ministral-3-14b",
    "ministral-3-8b",
    "olmo-3-32b",
    "olmo-3-7b",
}
# Bits that a quantization takes for each parameter, in files of models without much else in them.
BITS = {"MXFP4": (4.2, 5.5), "Q4_K_M": (4.5, 5.6), "Q8_0": (7.7, 8.7)}
# Small models keep large embeddings in more bits; others have a projector for images in the same file, were
# trained for one precision and stay in it in part, or count parameters that the file stores apart.
HEAVIER = {
    "gemma3-1b": 6.6,
    "gemma3-4b": 6.3,
    "gemma3n-e2b": 8.4,
    "gemma3n-e4b": 7.8,
    "gemma4-e2b": 11.3,
    "gemma4-e4b": 9.7,
    "ministral-3-3b": 6.2,
    "nemotron-3-nano-30b-a3b": 6.1,
    "phi-4-reasoning-14b": 6.1,
    "qwen3-vl-8b-thinking": 5.7,
    "qwen3.5-4b": 5.9,
}


def test_there_are_more_than_forty_models_of_many_makers():
    assert len(MODELS) >= 40
    assert len(BY_ID) == len(MODELS)
    assert len({model.name for model in MODELS}) == len(MODELS)
    assert len({model.publisher for model in MODELS}) >= 8


def test_no_name_gets_two_models():
    for place in (OLLAMA, HUGGING_FACE, MLX):
        names = [model.names[place].lower() for model in MODELS if place in model.names]
        assert len(set(names)) == len(names)
    pull_names = [pull_name_of(model, size) for model in MODELS for size in model.sizes]
    named = [name for name in pull_names if name]
    assert len(set(named)) == len(named)


@each_model
def test_it_says_what_it_is(model):
    assert model.name
    assert model.publisher
    assert model.license
    assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", model.released)
    assert 0 < model.active_parameters_count <= model.parameters_count
    assert model.train_context_tokens >= 4096 or model.id in WITHOUT_CONTEXT
    assert "text" in model.modalities
    assert set(model.modalities) <= {"text", "image", "audio"}
    assert not model.is_own


@each_model
def test_its_layers_are_those_of_one_architecture(model):
    if model.id in WITHOUT_LAYERS:
        assert model.layer_groups == ()
        return
    assert model.architecture
    assert sum(group.layers_count for group in model.layer_groups) == model.layers_count
    assert 512 <= model.embedding_length <= 16_384
    assert 30_000 <= model.vocabulary_size <= 300_000 or model.id in WITHOUT_VOCABULARY
    for group in model.layer_groups:
        if group.kv_heads:
            assert group.key_length in {64, 80, 96, 128, 192, 256, 512, 576}
            assert group.value_length in {0, 64, 80, 96, 128, 192, 256, 512}
        assert group.window_tokens < (model.train_context_tokens or 1 << 17)


@each_model
def test_its_sizes_are_those_of_its_quantization(model):
    for size in model.sizes:
        least, most = BITS[size.quantization]
        bits = size.size_bytes * 8 / model.parameters_count
        assert least <= bits <= HEAVIER.get(model.id, most)


def test_every_exception_is_one():
    """A figure that was put right leaves the list."""
    for model_id, most in HEAVIER.items():
        size = BY_ID[model_id].sizes[0]
        bits = size.size_bytes * 8 / BY_ID[model_id].parameters_count
        assert BITS[size.quantization][1] < bits <= most
    assert all(not BY_ID[model_id].layer_groups for model_id in WITHOUT_LAYERS)
    assert all(not BY_ID[model_id].train_context_tokens for model_id in WITHOUT_CONTEXT)
    assert all(not BY_ID[model_id].vocabulary_size for model_id in WITHOUT_VOCABULARY)


@each_model
def test_every_figure_has_a_source_that_can_be_looked_up(model):
    for url in model.sources.values():
        parts = urlsplit(url)
        assert parts.scheme == "https"
        assert parts.netloc
        assert len(parts.path) > 1
    backed = set(model.sources)
    assert "license" in backed
    assert "sizes" in backed
    if model.layer_groups:
        assert "config" in backed
    if model.overall_score is not None or model.ranks:
        assert "scores" in backed


@each_model
def test_its_names_are_ones_that_can_be_pulled(model):
    assert set(model.names) <= {OLLAMA, HUGGING_FACE, MLX}
    if OLLAMA in model.names:
        reference = parsed(model.names[OLLAMA])
        assert reference.source is Source.OLLAMA_REGISTRY
        assert reference.name == model.names[OLLAMA]
    for place in {HUGGING_FACE, MLX} & set(model.names):
        reference = parsed(f"hf:{model.names[place]}")
        assert (reference.source, reference.name) == (Source.HUGGING_FACE, model.names[place])
    for size in model.sizes:
        name = pull_name_of(model, size)
        assert not name or is_same(name, parsed(name))
    assert any(pull_name_of(model, size) for size in model.sizes)


@each_model
def test_its_id_leads_to_it(model):
    reference = parsed(model.id, MODELS)
    assert any(
        is_same(name if place == OLLAMA else f"hf:{name}", reference) for place, name in model.names.items()
    )


@each_model
def test_the_name_of_ollama_resolves_to_its_mlx_repository(model):
    if {OLLAMA, MLX} <= set(model.names):
        references, reasons = resolved(parsed(model.names[OLLAMA]), MODELS)
        assert references[0].name == model.names[MLX]
        assert reasons[0].code == "registry"


@each_model
def test_the_planner_can_reckon_with_it_at_every_use(model):
    for size in model.sizes:
        facts = facts_of(model, size)
        assert (facts is None) is (model.id in WITHOUT_LAYERS)
        if facts is None:
            continue
        for demand in DEMANDS.values():
            context = min(demand.context_tokens, model.train_context_tokens or demand.context_tokens)
            whole, smaller = footprint_at(facts, context, DEFAULTS, MEMORY, on_gpu=True)
            assert whole.weights_bytes + whole.repacked_weights_bytes == size.size_bytes
            assert 0 < smaller.kv_cache_bytes <= whole.kv_cache_bytes
            assert (
                size.size_bytes < smaller.total_bytes <= whole.total_bytes < 2 * size.size_bytes + (8 << 30)
            )


@each_model
def test_its_scores_are_ones_that_a_use_asks_for(model):
    assert model.overall_score is None or 20 <= model.overall_score <= 80
    asked = {demand.rank for demand in DEMANDS.values()}
    assert set(model.ranks) <= asked


def test_most_models_are_scored_and_every_use_has_many():
    for demand in DEMANDS.values():
        assert sum(quality_of(model, demand) is not None for model in MODELS) >= 60
        assert sum(demand.rank in model.ranks for model in MODELS) >= 40


def test_every_quantization_is_one_whose_quality_is_known():
    starts = tuple(start for start, _ in KEPT_RATIOS)
    assert all(size.quantization.startswith(starts) for model in MODELS for size in model.sizes)


def test_mixtures_are_told_by_their_active_parameters():
    mixtures = [model for model in MODELS if model.active_parameters_count < model.parameters_count]
    assert len(mixtures) >= 15
    for model in MODELS:
        if re.search(r"\ba\d+(\.\d+)?b\b", model.id):
            assert model in mixtures
