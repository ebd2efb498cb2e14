"""What people read: every sentence of a plan, word for word."""

from dataclasses import replace

import pytest

from autotuned.core.chat import ProfileName
from autotuned.core.errors import ContextTooLong, FieldInvalid, WouldSwap
from autotuned.core.learning import Learned
from autotuned.core.memory import MemoryView, PressureTier, Resident, SwapPolicy
from autotuned.core.model import LayerGroup
from autotuned.policy.plan import plan, shrink
from tests.examples import (
    DEEPSEEK_V3,
    DEFAULTS,
    GEMMA3_12B,
    LLAMA_3_1_8B,
    PLENTY,
    POCKET,
    QWEN3_8B,
    QWEN3_NEXT_80B,
    counted,
    estimated,
    short_memory,
    situation,
)

SMALL = replace(POCKET, train_context_tokens=4096)
LOADED = plan(counted(15), situation()).shape
QUANTISED = replace(DEFAULTS, kv_cache="q8_0")
CALM = MemoryView(reading=PLENTY, pressure=PressureTier.NORMAL)
GIB = 1 << 30
CACHE_1536 = ("kv-cache", "The KV cache takes 1.5 MiB: 1,536 tokens x 1 slot x 1,024 bytes.")
CACHE_4096 = ("kv-cache", "The KV cache takes 4.0 MiB: 4,096 tokens x 1 slot x 1,024 bytes.")
MEMORY_1536 = ("memory", "The load takes 44.2 MiB of 48.0 GiB that can be had.")
MEMORY_4096 = ("memory", "The load takes 49.2 MiB of 48.0 GiB that can be had.")
PROMPT_CACHE = ("host-prompt-cache", "Up to 4.6 GiB more may keep conversations that are in no slot.")


def told(need, state):
    """What a plan says, as pairs."""
    return [(reason.code, reason.text) for reason in plan(need, state).reasons]


def said(code, need, state):
    """The sentence of one code."""
    return dict(told(need, state))[code]


def short(available_gib, *, swap_gib=0, pressure=PressureTier.NORMAL, residents=()):
    """A machine of 16 GiB with so much left."""
    reading = short_memory(int(available_gib * GIB), swap_free_bytes=swap_gib * GIB)
    return MemoryView(reading=reading, pressure=pressure, residents=residents)


def never(need):
    return replace(need, swap_policy=SwapPolicy.NEVER)


def test_a_first_load():
    assert told(counted(15), situation()) == [
        ("needs", "15 prompt tokens + 1,024 for the reply + 256 spare = 1,295 tokens."),
        ("bucket", "1,295 snaps up to the bucket 1,536."),
        CACHE_1536,
        MEMORY_1536,
        PROMPT_CACHE,
    ]


def test_a_first_load_of_an_estimated_prompt():
    assert told(estimated(1), situation()) == [
        ("estimated", "The prompt was estimated at 1 token from its length."),
        ("needs", "1 prompt token + 1,024 for the reply + 256 spare = 1,281 tokens."),
        ("bucket", "1,281 snaps up to the bucket 1,536."),
        CACHE_1536,
        MEMORY_1536,
        PROMPT_CACHE,
    ]


def test_a_load_before_any_prompt_is_known():
    assert told(estimated(0), situation()) == [
        ("needs", "1,024 for the reply + 256 spare = 1,280 tokens."),
        ("bucket", "1,280 snaps up to the bucket 1,536."),
        CACHE_1536,
        MEMORY_1536,
        PROMPT_CACHE,
    ]


def test_a_need_that_is_a_bucket():
    assert told(counted(256), situation())[1] == ("bucket", "1,536 is a bucket.")


def test_a_need_below_the_smallest_bucket():
    assert told(counted(15, reply_tokens=100), situation()) == [
        ("needs", "15 prompt tokens + 100 for the reply + 256 spare = 371 tokens."),
        ("bucket", "371 snaps up to the bucket 512."),
        ("kv-cache", "The KV cache takes 512.0 KiB: 512 tokens x 1 slot x 1,024 bytes."),
        ("memory", "The load takes 42.2 MiB of 48.0 GiB that can be had."),
        PROMPT_CACHE,
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
    assert ("train-context", sentence) in told(need, situation(SMALL))


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
    assert told(need, situation(POCKET, LOADED)) == reasons


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
    assert told(need, situation(SMALL, replace(LOADED, context_tokens=4096)))[-1] == ("kept", sentence)


def test_growth():
    assert told(counted(600), situation(POCKET, LOADED)) == [
        ("needs", "600 prompt tokens + 1,024 for the reply + 256 spare = 1,880 tokens."),
        ("bucket", "1,880 snaps up to the bucket 2,048."),
        ("doubled", "A growth at least doubles the context, to 3,072 tokens, so that there are few."),
        ("grown", "The loaded context of 1,536 tokens is too small, so it grows to 3,072."),
        ("kv-cache", "The KV cache takes 3.0 MiB: 3,072 tokens x 1 slot x 1,024 bytes."),
        ("memory", "The load takes 47.2 MiB of 48.0 GiB that can be had."),
        PROMPT_CACHE,
    ]


def test_growth_that_memory_does_not_let_double():
    loaded = replace(LOADED, context_tokens=5120, memory_mapped=False)
    state = situation(QWEN3_8B, loaded, memory=short(9.5))
    assert said("doubled", counted(4500), state) == (
        "A growth doubles the context where memory allows; it allows 8,192 tokens."
    )


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
    assert told(need, situation()) == [("override", sentence), CACHE_4096, MEMORY_4096, PROMPT_CACHE]


def test_growth_to_a_requested_context():
    assert told(estimated(40, context_tokens=4096), situation(POCKET, LOADED)) == [
        ("estimated", "The prompt was estimated at 40 tokens from its length."),
        ("override", "The request sets the context to 4,096 tokens."),
        ("grown", "The loaded context of 1,536 tokens is too small, so it grows to 4,096."),
        CACHE_4096,
        MEMORY_4096,
        PROMPT_CACHE,
    ]


def test_a_model_that_does_not_tell_its_context():
    assert told(counted(15), situation(replace(POCKET, train_context_tokens=0)))[2] == (
        "train-context-unknown",
        "The model does not tell its largest context; 4,096 tokens are assumed unless a request sets more.",
    )


def test_what_a_profile_does_not_reserve():
    need = replace(counted(1500), profile=ProfileName.FAST)
    assert said("profile", need, situation()) == (
        "The fast profile provides for 2,048 tokens, so 512 of 1,024 are reserved for the reply."
    )


def test_what_a_session_is_expected_to_come_to():
    agent = replace(counted(15), session_tokens=7000)
    assert said("session", agent, situation()) == (
        "The session is expected to come to 7,000 tokens, so the context is 8,192."
    )
    longer = replace(counted(15), session_tokens=30_000)
    assert said("session", longer, situation(QWEN3_8B, memory=short(12))) == (
        "The session is expected to come to 30,000 tokens, and memory allows 16,384."
    )


def test_what_requests_usually_come_to():
    assert said("usual", counted(15), situation(learned=Learned(usual_context_tokens=5000))) == (
        "Requests of this model usually come to 5,000 tokens, so the context is 6,144."
    )


def test_slots_that_share_a_context():
    state = situation(defaults=replace(DEFAULTS, slots_count=4))
    assert told(counted(15), state)[1:4] == [
        ("slots", "4 slots share the context: 512 for each other one make 2,831."),
        ("bucket", "2,831 snaps up to the bucket 3,072."),
        ("kv-cache", "The KV cache takes 3.0 MiB: 3,072 tokens x 1,024 bytes, shared by 4 slots."),
    ]


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (QWEN3_8B, "The KV cache takes 216.0 MiB: 1,536 tokens x 1 slot x 147,456 bytes."),
        (
            GEMMA3_12B,
            "The KV cache takes 576.0 MiB: 8 layers for all of 1,536 tokens and 40 layers for a window of 1,024.",
        ),
        (QWEN3_NEXT_80B, "The KV cache takes 36.0 MiB: 1,536 tokens x 1 slot x 24,576 bytes."),
    ],
)
def test_the_cache_of_large_models(facts, sentence):
    assert said("kv-cache", counted(15), situation(facts)) == sentence


def test_a_state_that_does_not_grow_with_the_context():
    assert said("recurrent-state", counted(15), situation(QWEN3_NEXT_80B)) == (
        "The recurrent state takes 75.4 MiB, whatever the context."
    )


def test_why_a_cache_is_quantised():
    high = short(2, pressure=PressureTier.HIGH)
    fast = replace(counted(15), profile=ProfileName.FAST)
    assert said("cache-type", counted(15), situation(defaults=QUANTISED)) == (
        "The KV cache is Q8_0, as configured."
    )
    assert said("cache-type", fast, situation()) == "The KV cache is Q8_0, as the fast profile has it."
    assert said("cache-type", counted(15), situation(memory=high)) == (
        "The KV cache is Q8_0, since memory pressure is high."
    )


def test_quantised_values_without_flash_attention():
    state = situation(defaults=replace(QUANTISED, flash_attention=False))
    assert said("value-cache", counted(15), state) == (
        "The value cache is F16: a quantised one needs flash attention, which is off."
    )


def test_heads_that_cannot_be_quantised():
    group = LayerGroup(layers_count=4, kv_heads=2, key_length=80, value_length=80)
    state = situation(replace(POCKET, layer_groups=(group,)), defaults=QUANTISED)
    assert told(counted(15), state)[2:4] == [
        ("key-cache", "The key cache is F16: heads of 80 elements do not divide into blocks of 32."),
        ("value-cache", "The value cache is F16: heads of 80 elements do not divide into blocks of 32."),
    ]


def test_keys_that_stand_for_the_values_are_as_the_values_must_be():
    plenty = replace(PLENTY, total_bytes=1 << 40, available_bytes=900 << 30)
    state = situation(
        DEEPSEEK_V3,
        defaults=replace(QUANTISED, flash_attention=False),
        memory=replace(CALM, reading=plenty),
    )
    assert told(counted(15), state)[2:4] == [
        ("value-cache", "The value cache is F16: a quantised one needs flash attention, which is off."),
        ("latent-attention", "Keys and values are of one type: in this model the keys stand for both."),
    ]


def test_how_long_a_batch_takes():
    chosen = situation(QWEN3_8B, defaults=replace(DEFAULTS, batch_tokens=0))
    assert said("batch", counted(15), chosen) == (
        "Prefill goes in batches of 32 tokens: 5,242 ms each at 6 tokens a second, as is estimated."
    )
    measured = replace(chosen, learned=Learned(prefill_tokens_per_second=400))
    assert said("batch", counted(15), measured) == (
        "Prefill goes in batches of 64 tokens: 160 ms each at 400 tokens a second."
    )


def test_pressure():
    high = short(2, pressure=PressureTier.HIGH)
    assert said("pressure", counted(15), situation(memory=high)) == (
        "87 % of the memory is in use (pressure is high), so the context is 1,024 tokens in place of 1,536."
    )


def test_who_leaves():
    idle = Resident(model_id="old", freed_bytes=4 * GIB, is_busy=False, last_used_at=1)
    state = situation(QWEN3_8B, memory=short(5, residents=(idle,)))
    assert said("evictions", counted(15), state) == "Idle old leaves memory for it, which frees 4.0 GiB."
    growing = replace(idle, model_id="new", freed_bytes=2 * GIB, last_used_at=2, promised_bytes=GIB)
    state = situation(QWEN3_8B, memory=short(1.5, residents=(idle, growing)))
    assert said("evictions", counted(15), state) == (
        "Idle old and new leave memory for it, which frees 5.0 GiB."
    )


def test_what_is_given_up():
    assert said("reduced", counted(15), situation(QWEN3_8B, memory=short(6.55))) == (
        "5.0 GiB can be used, so the context is 1,024 tokens in place of 1,536 (reduction 1 of 5)."
    )
    asked = replace(counted(15), context_tokens=40_000)
    assert said("reduced", asked, situation(QWEN3_8B, memory=short(11))) == (
        "9.5 GiB can be used, so the KV cache is Q8_0 (reduction 3 of 5)."
    )


def test_a_load_that_cuts_the_margin():
    assert told(counted(15), situation(QWEN3_8B, memory=short(5)))[2:] == [
        (
            "reduced",
            "3.5 GiB can be used, so the context is 768 tokens in place of 1,536 and the KV cache is Q8_0 "
            "(reduction 3 of 5).",
        ),
        ("kv-cache", "The KV cache takes 57.4 MiB: 768 tokens x 1 slot x 78,336 bytes."),
        ("memory", "The load takes 4.9 GiB of 5.0 GiB that can be had."),
        ("margin", "That leaves less than the 1.5 GiB that should stay free."),
    ]


def test_a_load_that_may_swap():
    assert said("may-swap", counted(15), situation(QWEN3_8B, memory=short(4, swap_gib=4))) == (
        "The machine may swap: 965.3 MiB more than that are needed."
    )


def test_a_context_that_stays_since_memory_is_short():
    state = situation(QWEN3_8B, replace(LOADED, context_tokens=8192), memory=short(1))
    assert told(counted(7800), state) == [
        ("needs", "7,800 prompt tokens + 1,024 for the reply = 8,824 tokens."),
        ("kept", "The loaded context of 8,192 tokens is kept, so the reply may be cut after 392 tokens."),
        ("kept-for-memory", "Memory is too short for a larger context, so the loaded one is kept."),
    ]


def test_a_model_that_shrinks():
    loaded = replace(LOADED, context_tokens=8192)
    high = situation(QWEN3_8B, loaded, memory=short(1, pressure=PressureTier.HIGH))
    assert [(reason.code, reason.text) for reason in shrink(high, 100).reasons] == [
        (
            "shrunk",
            "93 % of the memory is in use (pressure is high) and nobody uses the model, "
            "so its context shrinks from 8,192 to 512 tokens, which frees 1.1 GiB.",
        ),
        ("kv-cache", "The KV cache takes 72.0 MiB: 512 tokens x 1 slot x 147,456 bytes."),
    ]
    critical = replace(high, memory=short(1, pressure=PressureTier.CRITICAL))
    assert shrink(critical, 8000).reasons[0].text == (
        "93 % of the memory is in use (pressure is critical) and nobody uses the model, "
        "so its KV cache becomes Q8_0, which frees 540.0 MiB."
    )


@pytest.mark.parametrize("loaded", [None, replace(LOADED, context_tokens=4096)])
def test_a_prompt_that_never_fits(loaded):
    with pytest.raises(ContextTooLong) as refused:
        plan(counted(4096), situation(SMALL, loaded))
    assert refused.value.message == (
        "The prompt has 4,096 tokens and the context holds 4,096; "
        "shorten it to fewer than 4,096 tokens or use a model with a longer context."
    )


def test_a_prompt_longer_than_the_requested_context():
    with pytest.raises(ContextTooLong) as refused:
        plan(counted(3000, context_tokens=2048), situation())
    assert refused.value.metadata == {"promptTokens": "3000", "contextTokens": "2048"}


def test_a_requested_context_beyond_the_model():
    with pytest.raises(FieldInvalid) as refused:
        plan(counted(15, context_tokens=100_000), situation(SMALL))
    assert refused.value.message == (
        "context_tokens: 100,000 tokens are more than the model's largest context; ask for at most 4,096."
    )


SIXTEEN = situation(LLAMA_3_1_8B, defaults=replace(DEFAULTS, slots_count=16), memory=short(6.6))


@pytest.mark.parametrize(
    ("need", "state", "sentence"),
    [
        (
            never(counted(15)),
            situation(QWEN3_8B, memory=short(5)),
            "The model needs 4.9 GiB with the context of 768 tokens that the prompt needs, but 3.5 GiB can be "
            "used without swapping while 1.5 GiB stay free, which no context fits; close other programs or "
            "take a smaller model.",
        ),
        (
            never(counted(20_000)),
            situation(QWEN3_8B, memory=short(7)),
            "The model needs 6.4 GiB with the context of 20,736 tokens that the prompt needs, but 5.5 GiB can "
            "be used without swapping while 1.5 GiB stay free; a context of 8,192 would fit: shorten the "
            "prompt or close other programs.",
        ),
        (
            never(counted(15, context_tokens=40_000)),
            situation(QWEN3_8B, memory=short(8)),
            "The model needs 7.9 GiB with the context of 40,192 tokens that was asked for, but 6.5 GiB can be "
            "used without swapping while 1.5 GiB stay free; ask for at most 16,384 tokens or close other "
            "programs.",
        ),
        (
            never(estimated(0)),
            situation(QWEN3_8B, memory=short(5)),
            "The model needs 4.9 GiB with a context of 512 tokens, the least for a prompt that is not known "
            "yet, but 3.5 GiB can be used without swapping while 1.5 GiB stay free, which no context fits; "
            "close other programs or take a smaller model.",
        ),
        (
            never(estimated(0)),
            SIXTEEN,
            "The model needs 5.3 GiB with a context of 8,192 tokens, the least for a prompt that is not known "
            "yet, but 5.1 GiB can be used without swapping while 1.5 GiB stay free; ask for at most 4,096 "
            "tokens or close other programs.",
        ),
        (
            counted(15),
            situation(QWEN3_8B, memory=short(2, swap_gib=1)),
            "The model needs 4.9 GiB with the context of 768 tokens that the prompt needs, but memory and swap "
            "together have 3.0 GiB for it, which no context fits; close other programs or take a smaller "
            "model.",
        ),
    ],
)
def test_a_load_that_memory_cannot_hold(need, state, sentence):
    with pytest.raises(WouldSwap) as refused:
        plan(need, state)
    assert refused.value.message == sentence
