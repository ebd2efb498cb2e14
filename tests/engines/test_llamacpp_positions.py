"""Whether a longer context encodes positions otherwise, as the file says it."""

import pytest

from autotuned.engines.gguf import read_header
from autotuned.engines.gguf_facts.facts import model_facts
from tests.engines.random_models import write_model


@pytest.mark.parametrize(
    ("keys", "switch_tokens"),
    [
        ({}, 0),
        ({"rope.scaling.original_context_length": 4096}, 4096),
        ({"rope.scaling.original_context_length": 4096, "rope.scaling.type": "longrope"}, 4096),
        ({"rope.scaling.original_context_length": 4096, "rope.scaling.type": "yarn"}, 0),
    ],
)
def test_the_context_where_the_factors_change(tmp_path, keys, switch_tokens):
    path = write_model(tmp_path / "model.gguf", keys=keys)
    assert model_facts((read_header(path),), path).position_switch_tokens == switch_tokens
