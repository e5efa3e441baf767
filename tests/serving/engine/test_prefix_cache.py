from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrain.serving.engine.prefix_cache import (
    BLOCK_TOKENS,
    ENTRY_BYTES,
    SPARSE_TOKENS,
    PrefixCache,
    worth_keeping,
)

STATE_BYTES = 100


@dataclass(frozen=True)
class State:
    """Stands for what reading these tokens would give."""

    read: tuple[int, ...]
    nbytes: int = STATE_BYTES

    def copy(self):
        return State(self.read)


def remember(cache, prompt, salt=""):
    for length, key in worth_keeping(cache.keys(prompt, salt)).items():
        cache.keep(key, State(tuple(prompt[:length])))


def find(cache, prompt, salt=""):
    return cache.find(cache.keys(prompt, salt))


@pytest.fixture
def cache():
    return PrefixCache(1 << 20, "sha256:model")


def test_a_prompt_that_was_read_need_not_be_read_again_but_for_its_end(cache):
    prompt = list(range(200))
    assert find(cache, prompt) == (0, None)
    remember(cache, prompt)
    length, state = find(cache, prompt)
    assert length == 192
    assert state.read == tuple(range(192))
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.reused_tokens) == (1, 1, 192)
    assert statistics.entries == 3
    assert statistics.nbytes == 3 * (STATE_BYTES + ENTRY_BYTES)


def test_the_last_token_is_always_read(cache):
    prompt = list(range(BLOCK_TOKENS))
    remember(cache, [*prompt, 7])
    assert find(cache, prompt) == (0, None)
    assert find(cache, [*prompt, 9])[0] == BLOCK_TOKENS


def test_a_longer_prompt_takes_what_a_shorter_one_left(cache):
    remember(cache, list(range(1000)))
    assert find(cache, list(range(3000)))[0] == 960
    remember(cache, list(range(3000)))
    assert find(cache, list(range(2500)))[0] == 2048


def test_another_salt_or_model_finds_nothing(cache):
    prompt = list(range(100))
    remember(cache, prompt, "one")
    assert find(cache, prompt, "one")[0] == 64
    assert find(cache, prompt, "two")[0] == 0
    assert find(cache, prompt)[0] == 0
    other = PrefixCache(1 << 20, "sha256:other")
    assert not set(other.keys(prompt, "one").values()) & set(cache.keys(prompt, "one").values())


def test_a_salt_cannot_be_made_to_look_like_the_model_or_the_tokens():
    one = PrefixCache(1 << 20, "bc").keys(range(65), "a")
    other = PrefixCache(1 << 20, "c").keys(range(65), "ab")
    assert one[64] != other[64]


def test_the_least_recently_used_make_room():
    cache = PrefixCache(2 * (STATE_BYTES + ENTRY_BYTES), "m")
    prompts = [[n] * 65 for n in range(3)]
    remember(cache, prompts[0])
    remember(cache, prompts[1])
    assert find(cache, prompts[0])[0] == 64
    remember(cache, prompts[2])
    assert [find(cache, prompt)[0] for prompt in prompts] == [64, 0, 64]
    assert cache.statistics().evictions == 1
    assert cache.statistics().nbytes <= 2 * (STATE_BYTES + ENTRY_BYTES)


@pytest.mark.parametrize("max_bytes", [0, STATE_BYTES])
def test_without_room_nothing_is_kept(max_bytes):
    cache = PrefixCache(max_bytes, "m")
    remember(cache, list(range(100)))
    assert find(cache, list(range(100)))[0] == 0
    assert cache.statistics().entries == 0


def test_long_prompts_leave_few_states(cache):
    keys = worth_keeping(cache.keys(list(range(10_000)), ""))
    assert len(keys) <= SPARSE_TOKENS // BLOCK_TOKENS + 10_000 // SPARSE_TOKENS + 1
    assert max(keys) == 9984


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 300), st.integers(0, 2)), max_size=12))
@settings(max_examples=60)
def test_what_is_found_is_what_reading_would_give(requests):
    cache = PrefixCache(5 * (STATE_BYTES + ENTRY_BYTES), "m")
    for branch, length, salt in requests:
        prompt = ([1] * 130 + [branch] * 200)[:length]
        found, state = find(cache, prompt, str(salt))
        assert found < len(prompt)
        if found:
            assert state.read == tuple(prompt[:found])
        remember(cache, prompt, str(salt))
