"""What people read: every sentence of a plan, word for word."""

from dataclasses import replace

import pytest

from autotuned.core.errors import ContextTooLong, FieldInvalid
from autotuned.core.plan import KvCacheType
from autotuned.policy.plan import plan
from tests.examples import DEFAULTS, POCKET, counted, estimated

SMALL = replace(POCKET, train_context_tokens=4096)
LOADED = plan(POCKET, counted(15), None, DEFAULTS).shape
QUANTISED = replace(
    DEFAULTS, key_cache_type=KvCacheType.Q8_0, value_cache_type=KvCacheType.Q8_0, slots_count=2
)
CACHE_1536 = ("kv-cache", "The KV cache takes 1.5 MiB: 1,536 tokens x 1 slot x 1,024 bytes.")
CACHE_2048 = ("kv-cache", "The KV cache takes 2.0 MiB: 2,048 tokens x 1 slot x 1,024 bytes.")
CACHE_4096 = ("kv-cache", "The KV cache takes 4.0 MiB: 4,096 tokens x 1 slot x 1,024 bytes.")


def told(facts, need, loaded=None, defaults=DEFAULTS):
    return [(reason.code, reason.text) for reason in plan(facts, need, loaded, defaults).reasons]


def test_a_first_load():
    assert told(POCKET, counted(15)) == [
        ("needs", "15 prompt tokens + 1,024 for the reply + 256 spare = 1,295 tokens."),
        ("bucket", "1,295 snaps up to the bucket 1,536."),
        CACHE_1536,
    ]


def test_a_first_load_of_an_estimated_prompt():
    assert told(POCKET, estimated(1)) == [
        ("estimated", "The prompt was estimated at 1 token from its length."),
        ("needs", "1 prompt token + 1,024 for the reply + 256 spare = 1,281 tokens."),
        ("bucket", "1,281 snaps up to the bucket 1,536."),
        CACHE_1536,
    ]


def test_a_load_before_any_prompt_is_known():
    assert told(POCKET, estimated(0)) == [
        ("needs", "1,024 for the reply + 256 spare = 1,280 tokens."),
        ("bucket", "1,280 snaps up to the bucket 1,536."),
        CACHE_1536,
    ]


def test_a_need_that_is_a_bucket():
    assert told(POCKET, counted(256))[1] == ("bucket", "1,536 is a bucket.")


def test_a_need_below_the_smallest_bucket():
    assert told(POCKET, counted(15, reply_tokens=100)) == [
        ("needs", "15 prompt tokens + 100 for the reply + 256 spare = 371 tokens."),
        ("bucket", "371 snaps up to the bucket 512."),
        ("kv-cache", "The KV cache takes 512.0 KiB: 512 tokens x 1 slot x 1,024 bytes."),
    ]


@pytest.mark.parametrize(
    ("need", "sentence"),
    [
        (counted(2500), "The model's largest context is 4,096 tokens."),
        (counted(3000), "The model's largest context is 4,096 tokens."),
        (
            counted(4000),
            "The model's largest context is 4,096 tokens, so the reply may be cut after 96 tokens.",
        ),
        (
            counted(4095),
            "The model's largest context is 4,096 tokens, so the reply may be cut after 1 token.",
        ),
        (
            estimated(4000),
            "The model's largest context is 4,096 tokens, so the reply may be cut after about 96 tokens.",
        ),
        (estimated(9000), "The model's largest context is 4,096 tokens, so the prompt may not fit."),
    ],
)
def test_the_largest_context(need, sentence):
    assert ("train-context", sentence) in told(SMALL, need)


@pytest.mark.parametrize(
    ("need", "reasons"),
    [
        (
            counted(15),
            [
                ("needs", "15 prompt tokens + 1,024 for the reply = 1,039 tokens."),
                ("kept", "The loaded context of 1,536 tokens holds it."),
            ],
        ),
        (
            estimated(40),
            [
                ("estimated", "The prompt was estimated at 40 tokens from its length."),
                ("needs", "40 prompt tokens + 1,024 for the reply = 1,064 tokens."),
                ("kept", "The loaded context of 1,536 tokens holds it."),
            ],
        ),
        (
            estimated(0),
            [
                ("needs", "Room for a reply of 1,024 tokens."),
                ("kept", "The loaded context of 1,536 tokens holds it."),
            ],
        ),
        (counted(15, context_tokens=1024), [("kept", "The loaded context of 1,536 tokens holds it.")]),
        (
            counted(700, context_tokens=1024),
            [
                (
                    "kept",
                    "The loaded context of 1,536 tokens is kept, so the reply may be cut after 836 tokens.",
                )
            ],
        ),
    ],
)
def test_a_kept_context(need, reasons):
    assert told(POCKET, need, LOADED) == reasons


@pytest.mark.parametrize(
    ("need", "sentence"),
    [
        (
            counted(4000),
            "The loaded context of 4,096 tokens is the model's largest, so the reply may be cut after 96 tokens.",
        ),
        (
            estimated(9000),
            "The loaded context of 4,096 tokens is the model's largest, so the prompt may not fit.",
        ),
    ],
)
def test_a_kept_context_that_cannot_grow(need, sentence):
    assert told(SMALL, need, replace(LOADED, context_tokens=4096))[-1] == ("kept", sentence)


def test_growth():
    assert told(POCKET, counted(600), LOADED) == [
        ("needs", "600 prompt tokens + 1,024 for the reply + 256 spare = 1,880 tokens."),
        ("bucket", "1,880 snaps up to the bucket 2,048."),
        ("grown", "The loaded context of 1,536 tokens is too small, so it grows to 2,048."),
        CACHE_2048,
    ]


@pytest.mark.parametrize(
    ("need", "sentence"),
    [
        (counted(15, context_tokens=4096), "The request sets the context to 4,096 tokens."),
        (
            estimated(0, context_tokens=4000),
            "The request sets the context to 4,000 tokens, which is 4,096 in steps of 256.",
        ),
        (
            counted(4000, context_tokens=4096),
            "The request sets the context to 4,096 tokens; the reply may be cut after 96 tokens.",
        ),
    ],
)
def test_a_requested_context(need, sentence):
    assert told(POCKET, need) == [("override", sentence), CACHE_4096]


def test_growth_to_a_requested_context():
    assert told(POCKET, estimated(40, context_tokens=4096), LOADED) == [
        ("estimated", "The prompt was estimated at 40 tokens from its length."),
        ("override", "The request sets the context to 4,096 tokens."),
        ("grown", "The loaded context of 1,536 tokens is too small, so it grows to 4,096."),
        CACHE_4096,
    ]


def test_a_model_that_does_not_tell_its_context():
    assert told(replace(POCKET, train_context_tokens=0), counted(15))[2] == (
        "train-context-unknown",
        "The model does not tell its largest context; 4,096 tokens are assumed unless a request sets more.",
    )


def test_a_quantised_cache_of_two_slots():
    assert told(POCKET, counted(15), None, QUANTISED)[-1] == (
        "kv-cache",
        "The KV cache takes 1.6 MiB: 1,536 tokens x 2 slots x 544 bytes.",
    )


def test_a_cache_that_is_an_upper_bound():
    assert told(replace(POCKET, kv_is_dense=False), counted(15))[-1] == (
        "kv-upper-bound",
        "Some layers keep less than full attention does, so the KV cache takes that at most.",
    )


def test_a_large_cache():
    large = replace(POCKET, layers_count=32, kv_heads_per_layer=(8,) * 32, key_length=128, value_length=128)
    assert told(large, counted(7000))[-1] == (
        "kv-cache",
        "The KV cache takes 1.0 GiB: 8,192 tokens x 1 slot x 131,072 bytes.",
    )


def test_quantised_values_without_flash_attention():
    assert told(POCKET, counted(15), None, replace(QUANTISED, flash_attention=False))[2] == (
        "value-cache",
        "The value cache is F16: a quantised one needs flash attention, which is off.",
    )


def test_heads_that_cannot_be_quantised():
    facts = replace(POCKET, key_length=80, value_length=80)
    assert told(facts, counted(15), None, QUANTISED)[2:4] == [
        ("key-cache", "The key cache is F16: heads of 80 elements do not divide into blocks of 32."),
        ("value-cache", "The value cache is F16: heads of 80 elements do not divide into blocks of 32."),
    ]


@pytest.mark.parametrize("loaded", [None, replace(LOADED, context_tokens=4096)])
def test_a_prompt_that_never_fits(loaded):
    with pytest.raises(ContextTooLong) as refused:
        plan(SMALL, counted(4096), loaded, DEFAULTS)
    assert refused.value.message == (
        "The prompt has 4,096 tokens and the context holds 4,096; "
        "shorten it to fewer than 4,096 tokens or use a model with a longer context."
    )


def test_a_prompt_longer_than_the_requested_context():
    with pytest.raises(ContextTooLong) as refused:
        plan(POCKET, counted(3000, context_tokens=2048), None, DEFAULTS)
    assert refused.value.metadata == {"promptTokens": "3000", "contextTokens": "2048"}


def test_a_requested_context_beyond_the_model():
    with pytest.raises(FieldInvalid) as refused:
        plan(SMALL, counted(15, context_tokens=100_000), None, DEFAULTS)
    assert refused.value.message == (
        "context_tokens: 100,000 tokens are more than the model's largest context; ask for at most 4,096."
    )
