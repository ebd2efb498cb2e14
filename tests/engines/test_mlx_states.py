"""States of conversations: which one spares a prompt the most, which ones stay, and what a file holds."""

import pytest

pytest.importorskip("mlx_lm", reason="mlx-lm is not installed")

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, KVCache

from autotuned.engines.mlx.inside.files import read_state, write_state
from autotuned.engines.mlx.inside.states import Reply, State, States

TOKEN_BYTES = 2 * 2 * 8 * 4


def fed(state, tokens):
    """The state after more tokens."""
    values = mx.array([[[[float(token)] * 8 for token in tokens]] * 2])
    for cache in state.caches:
        if isinstance(cache, KVCache):
            cache.update_and_fetch(values, values)
        else:
            cache[0] = mx.array([float(sum(tokens)) + (0.0 if cache[0] is None else cache[0].item())])
    state.tokens.extend(tokens)
    return state


def plain():
    return [KVCache()]


def hybrid():
    return [KVCache(), ArraysCache(1)]


def test_a_state_goes_back_to_what_it_shares():
    states = States(plain, 0)
    fed(states.begin("one", [1, 2, 3, 4]), [1, 2, 3, 4])
    state = states.begin("one", [1, 2, 9])
    assert state.tokens == [1, 2]
    assert state.caches[0].offset == 2
    # The last token of a prompt is always left to be computed.
    assert states.begin("one", [1, 2]).tokens == [1]


def test_another_conversation_shares_a_beginning_and_leaves_it_whole():
    states = States(plain, 1 << 20)
    first = fed(states.begin("one", [1, 2, 3, 4]), [1, 2, 3, 4])
    second = fed(states.begin("two", [1, 2, 3, 7]), [7])
    assert (second.tokens, first.tokens) == ([1, 2, 3, 7], [1, 2, 3, 4])
    assert first.caches[0].keys_and_values()[0][0, 0, :, 0].tolist() == [1, 2, 3, 4]
    assert second.caches[0].keys_and_values()[0][0, 0, :, 0].tolist() == [1, 2, 3, 7]


def test_the_oldest_leave_beyond_the_budget():
    one = fed(State(plain()), list(range(10))).bytes_count
    assert one == 256 * TOKEN_BYTES
    states = States(plain, 2 * one)
    for number in range(5):
        tokens = [100 * number + place for place in range(10)]
        fed(states.begin(str(number), tokens), tokens)
    states.begin("4", [400, 401])
    assert [states.of(str(number)) is not None for number in range(5)] == [False, False, True, True, True]
    assert States(plain, 0).of("nobody") is None


def test_what_cannot_go_back_goes_back_to_copies():
    states = States(hybrid, 0)
    state = fed(states.begin("one", [1, 2, 3]), [1, 2, 3])
    assert not state.can_rewind
    state.check()
    fed(state, [4, 5])
    assert state.reusable([1, 2, 9]) == 0
    assert state.reusable([1, 2, 3, 4, 5, 6]) == 5
    assert state.reusable([1, 2, 3, 9]) == 3
    again = states.begin("one", [1, 2, 3, 9])
    assert again.tokens == [1, 2, 3]
    assert again.caches[1][0].item() == 6.0
    fed(again, [9])
    # The copy was not changed by what followed: it serves again.
    assert states.begin("one", [1, 2, 3, 8]).caches[1][0].item() == 6.0


def test_only_the_latest_copies_are_kept():
    state = State(hybrid())
    for token in range(1, 6):
        fed(state, [token]).check()
    assert [each.tokens_count for each in state.checkpoints] == [4, 5]
    plain_bytes = sum(cache.nbytes for cache in state.caches)
    assert state.bytes_count == plain_bytes + 2 * 4


@pytest.mark.parametrize("make", [plain, hybrid])
def test_a_file_holds_what_goes_on(tmp_path, make):
    state = fed(State(make()), [1, 2, 3])
    if make is hybrid:
        state.check()
        fed(state, [4])
    state.reply = Reply("a prompt", [1, 2, 3], "é", [4])
    path = tmp_path / "state.kv"
    lasting = state.lasting()
    assert write_state(path, lasting) == path.stat().st_size
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.kv"]
    found = read_state(path)
    assert (found.tokens, found.reply) == ([1, 2, 3], state.reply)
    assert found.caches[0].offset == 3
    assert found.reusable([1, 2, 3, 5]) == 3
    # Nothing is set aside in a file.
    assert found.caches[0].keys.shape[2] == 3
    if make is hybrid:
        assert found.caches[1][0].item() == 6.0
    assert state.tokens == ([1, 2, 3, 4] if make is hybrid else [1, 2, 3])
