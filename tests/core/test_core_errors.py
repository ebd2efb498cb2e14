"""The sentences of a prompt that is too long: the advice is the one that helps."""

from __future__ import annotations

import pytest

from autotuned.core.errors import ContextTooLong

ADVICE = [
    (
        ContextTooLong(prompt_tokens=9000, context_tokens=8192),
        "The prompt has 9,000 tokens and the context holds 8,192; "
        "shorten it to fewer than 8,192 tokens or use a model with a longer context.",
    ),
    (
        ContextTooLong(prompt_tokens=2000, context_tokens=1024, possible_context_tokens=8192),
        "The prompt has 2,000 tokens and the context that the request sets holds 1,024; "
        "leave context_tokens out or raise it above 2,000, up to 8,192.",
    ),
]


@pytest.mark.parametrize(("error", "sentence"), ADVICE)
def test_the_advice_names_what_can_be_changed(error, sentence):
    assert error.message == sentence
    assert error.metadata == {
        "promptTokens": str(error.prompt_tokens),
        "contextTokens": str(error.context_tokens),
    }
