"""Entries of servers, and a sentence for every mistake in one."""

import pytest

from autotuned.core.upstream import ENGINE_NAMES, TokenSource, Upstream, parse_upstream


@pytest.mark.parametrize(
    ("entry", "upstream"),
    [
        ("lab=http://127.0.0.1:8000", Upstream(name="lab", url="http://127.0.0.1:8000")),
        (
            "  hf=https://router.example.org/v1   token=env:HF_TOKEN  ",
            Upstream(name="hf", url="https://router.example.org/v1", token_source=TokenSource("env", "HF_TOKEN")),
        ),
        (
            "lab-2=http://[::1]:8000/v1 slots=16 token=file:~/.config/lab.key",
            Upstream(
                name="lab-2",
                url="http://[::1]:8000/v1",
                token_source=TokenSource("file", "~/.config/lab.key"),
                slots_count=16,
            ),
        ),
        ("a=https://x.example/openai=1", Upstream(name="a", url="https://x.example/openai=1")),
    ],
)  # fmt: skip
def test_an_entry_is_read(entry, upstream):
    assert parse_upstream(entry) == upstream


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("", 'is written "NAME=URL'),
        ("http://127.0.0.1:8000", 'is written "NAME=URL'),
        ("Lab=http://x", 'not "Lab"'),
        ("=http://x", 'not ""'),
        ("2lab=http://x", 'not "2lab"'),
        ("a b=http://x", 'is written "NAME=URL'),
        ("lab=", "is no http or https URL"),
        ("lab=127.0.0.1:8000", "is no http or https URL"),
        ("lab=ftp://x", "is no http or https URL"),
        ("lab=http://x:99999", "is no URL"),
        ("lab=http://[::1", "is no URL"),
        ("lab=http://x/v1?key=1", 'has a "?"'),
        ("lab=http://ä.example", "characters that no URL has"),
        ("lab=http://me:s3cret@x", "a user or a password"),
        ("lab=http://x token=s3cret", "neither env:VARIABLE nor file:/WHOLE/PATH"),
        ("lab=http://x token=env:2X", "neither env:VARIABLE"),
        ("lab=http://x token=file:", "neither env:VARIABLE"),
        ("lab=http://x token=file:key", "neither env:VARIABLE"),
        ("lab=http://x slots=0", 'from 1 to 1024, not "0"'),
        ("lab=http://x slots=2000", "from 1 to 1024"),
        ("lab=http://x slots=-1", 'not "-1"'),
        ("lab=http://x slots=²", "not"),
        (f"lab=http://x slots={'9' * 5000}", "..."),
        ("lab=http://x slots=1 slots=2", "slots= twice"),
        ("lab=http://x speed=1", "neither token= nor slots="),
        *((f"{name}=http://x", "which is an engine") for name in sorted(ENGINE_NAMES)),
    ],
    ids=lambda text: text[:30],
)
def test_a_mistake_is_one_sentence(entry, words):
    with pytest.raises(ValueError, match=r"\.$") as refusal:
        parse_upstream(entry)
    sentence = str(refusal.value)
    assert words in sentence
    assert "\n" not in sentence
    assert len(sentence) < 300
    assert "s3cret" not in sentence
