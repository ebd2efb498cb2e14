"""Every model once, with every engine that has it."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given

from autotuned.core.model import ModelEntry
from autotuned.policy.catalogue import joined, named, placed
from tests.examples import POCKET

ENGINES = ("llamacpp", "mlx", "ollama", "lmstudio", "gpu")


def entry(model_id, engine="llamacpp", digest="a", **changes):
    facts = replace(POCKET, digest=digest) if digest else None
    return ModelEntry(id=model_id, engine=engine, path="", size_bytes=1, facts=facts, **changes)


def summary(models):
    return {model.id: [f"{each.engine}:{each.id}" for each in model.entries] for model in models}


def test_one_content_under_one_name_is_one_model():
    models = joined([entry("qwen3:8b"), entry("qwen3:8b", "ollama")])
    assert summary(models) == {"qwen3:8b": ["llamacpp:qwen3:8b", "ollama:qwen3:8b"]}


def test_one_name_for_two_contents_is_two_models():
    models = joined([entry("pocket"), entry("pocket", "gpu", digest="remote:gpu:pocket")])
    assert summary(models) == {"gpu/pocket": ["gpu:pocket"], "pocket": ["llamacpp:pocket"]}


def test_one_content_under_another_name_elsewhere_is_an_alias():
    models = joined([entry("Qwen3-8B-Q4_K_M"), entry("qwen/qwen3-8b", "lmstudio")])
    assert summary(models) == {"Qwen3-8B-Q4_K_M": ["llamacpp:Qwen3-8B-Q4_K_M", "lmstudio:qwen/qwen3-8b"]}
    assert models[0].aliases == ("qwen/qwen3-8b",)
    assert named(models, "qwen/qwen3-8b") is models[0]


def test_two_names_of_one_content_on_one_engine_stay_two_models():
    tags = [entry(name, engine) for engine in ("llamacpp", "ollama") for name in ("a:1", "a:2")]
    assert summary(joined(tags)) == {
        "a:1": ["llamacpp:a:1", "ollama:a:1"],
        "a:2": ["llamacpp:a:2", "ollama:a:2"],
    }


def test_what_cannot_be_used_is_listed_by_itself():
    models = joined([entry("x", digest="", problem="it is damaged"), entry("x", "ollama", digest="")])
    assert summary(models) == {"ollama/x": ["ollama:x"], "x": ["llamacpp:x"]}


def test_a_name_without_a_tag_means_the_latest():
    models = joined([entry("qwen3:latest", "ollama"), entry("qwen3:8b", "ollama")])
    assert named(models, "qwen3").id == "qwen3:latest"
    assert named(models, "qwen") is None


def entries():
    return st.lists(
        st.builds(entry, st.sampled_from("abc"), st.sampled_from(ENGINES), st.sampled_from(["", "1", "2"])),
        unique_by=lambda each: each.key,
        max_size=12,
    ).map(lambda found: sorted(found, key=lambda each: ENGINES.index(each.engine)))


@given(entries())
def test_every_entry_is_in_one_model_and_every_name_leads_to_one(found):
    models = joined(found)
    places = [each for model in models for each in model.entries]
    assert sorted(each.key for each in places) == sorted(each.key for each in found)
    names = [name for model in models for name in model.names]
    assert len(names) == len(set(names))
    for model in models:
        assert len({each.engine for each in model.entries}) == len(model.entries)
        assert len({each.facts.digest if each.facts else each.key for each in model.entries}) == 1
        assert all(named(models, name) is model for name in model.names)


def test_a_name_that_looks_qualified_is_no_place_for_other_content():
    models = joined(
        [
            entry("x", digest="a"),
            entry("ollama/x", digest="b"),
            entry("x", "ollama", digest="c"),
            entry("y", "ollama", digest="d"),
        ]
    )
    assert summary(models) == {
        "x": ["llamacpp:x"],
        "ollama/x": ["llamacpp:ollama/x"],
        "ollama/ollama/x": ["ollama:x"],
        "y": ["ollama:y"],
    }


def test_of_two_names_on_one_engine_the_one_that_is_called_so_is_the_same_model():
    models = joined([entry("x"), entry("a", "ollama"), entry("x:latest", "ollama"), entry("b", "ollama")])
    assert summary(models) == {
        "x": ["llamacpp:x", "ollama:x:latest"],
        "a": ["ollama:a"],
        "b": ["ollama:b"],
    }


def test_a_place_is_found_by_what_its_engine_calls_it():
    models = joined([entry("x"), entry("team", "ollama"), entry("x", "lab", digest="b")])
    assert [each.id for each in models] == ["lab/x", "x"]
    assert placed(models, "team", "ollama") is named(models, "x")
    assert placed(models, "x", "lab") is named(models, "lab/x")
    assert placed(models, "x", "ollama") is None
