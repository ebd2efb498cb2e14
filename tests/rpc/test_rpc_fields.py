"""The fields that several requests share, and who asks."""

from __future__ import annotations

import pytest
from autotune.v1 import inference_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.errors import FieldInvalid
from autotuned.core.memory import SwapPolicy
from autotuned.rpc.fields import LONGEST_KEEP_ALIVE_SECONDS, client_of, keep_alive_seconds, swap_policy


class Context:
    """A call with this metadata."""

    def __init__(self, *pairs: tuple[str, str | bytes]) -> None:
        self._pairs = pairs or None

    def invocation_metadata(self):
        return self._pairs


@pytest.mark.parametrize(
    ("value", "policy"),
    [
        (pb.SWAP_POLICY_UNSPECIFIED, None),
        (pb.SWAP_POLICY_ALLOW, SwapPolicy.ALLOW),
        (pb.SWAP_POLICY_NEVER, SwapPolicy.NEVER),
    ],
)
def test_each_swap_policy_arrives(value, policy):
    assert swap_policy(value) is policy


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        (None, None),
        (Duration(), 0.0),
        (Duration(seconds=600), 600.0),
        (Duration(seconds=-1), -1.0),
        (Duration(nanos=-1), -1.0),
        (Duration(seconds=-(2**40)), -1.0),
    ],
)
def test_a_keep_alive_is_absent_a_time_or_for_ever(duration, seconds):
    assert keep_alive_seconds(pb.GenerateRequest(keep_alive_duration=duration)) == seconds


@given(st.integers(-(2**40), int(LONGEST_KEEP_ALIVE_SECONDS)))
def test_a_keep_alive_that_is_taken_is_in_range(seconds):
    kept = keep_alive_seconds(pb.GenerateRequest(keep_alive_duration=Duration(seconds=seconds)))
    assert kept == (seconds if seconds >= 0 else -1.0)


@given(st.integers(int(LONGEST_KEEP_ALIVE_SECONDS) + 1, 2**62))
def test_a_keep_alive_beyond_a_year_is_refused_by_name(seconds):
    with pytest.raises(FieldInvalid, match=r"keep_alive_duration: .* is out of range"):
        keep_alive_seconds(pb.GenerateRequest(keep_alive_duration=Duration(seconds=seconds)))


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("autotunectl/0.1.0", "autotunectl"),
        ("curl/8.5.0", "curl"),
        ("OpenAI/Python", "OpenAI/Python"),
        ("tool/v2", "tool"),
        ("my-tool", "my-tool"),
        ("x" * 500, "x" * 100),
    ],
)
def test_who_asks_is_a_name_without_its_version(said, client):
    assert client_of(Context(("other", "y"), ("autotune-client", said))) == client


def test_who_says_nothing_is_nobody():
    assert client_of(Context()) == ""
    assert client_of(Context(("user-agent", "grpc/1"))) == ""
