import pytest
from fake_model import END_OF_TEXT, VOCAB_SIZE, ByteTokenizer, FakeModel

from spiketrain.runtime.errors import RequestError
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.errors import ConfigError, NoTokenizer
from spiketrain.serving.request.constraint import Grammars
from spiketrain.serving.request.preparation import prepare
from spiketrain.serving.request.request import Defaults, Request

LIMITS = ServingConfig(max_prompt_tokens=8, max_new_tokens=100)


def prepared(prompt="hi", encoder=ByteTokenizer, **fields):
    defaults = Defaults.from_generation_config({"temperature": 0.5, "top_k": 3, "eos_token_id": 7})
    encoder = encoder() if encoder else None
    grammars = Grammars(encoder, VOCAB_SIZE, (END_OF_TEXT,)) if encoder else None
    return prepare(Request(prompt, **fields), defaults, LIMITS, FakeModel, encoder, grammars)


def test_defaults_come_from_the_package_and_then_from_us():
    request = prepared()
    assert request.prompt_ids == tuple(b"hi")
    assert request.max_new_tokens == 100  # 256, within the limit
    assert (request.sampling.temperature, request.sampling.top_k) == (0.5, 3)
    assert request.sampling.top_p == 1.0


def test_a_request_overrides_the_defaults():
    request = prepared(temperature=0.0, top_k=0, top_p=0.5, seed=9, max_new_tokens=1)
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed) == (0, 0, 0.5, 9)
    assert request.max_new_tokens == 1


def test_a_seed_is_chosen_at_random_where_none_is_given():
    assert len({prepared().sampling.seed for _ in range(8)}) > 1


def test_token_ids_need_no_tokenizer():
    assert prepared([1, END_OF_TEXT], encoder=None).prompt_ids == (1, END_OF_TEXT)
    for request in ({"prompt": "hi"}, {"prompt": [1], "stop_sequences": ["x"]}):
        with pytest.raises(NoTokenizer, match="--tokenizer"):
            prepared(**request, encoder=None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": ""}, ["prompt", "at least one token", "''"]),
        ({"prompt": []}, ["prompt", "at least one token"]),
        ({"prompt": "x" * 9}, ["prompt", "at most 8 tokens", "got 9"]),
        ({"prompt": [0, 257]}, ["prompt", "0 to 256", "257"]),
        ({"prompt": [-1]}, ["prompt", "0 to 256", "-1"]),
        ({"prompt": "a\udcff"}, ["prompt", "valid UTF-8", "character 1"]),
        ({"max_new_tokens": 0}, ["max_new_tokens", "1 to 100", "0"]),
        ({"max_new_tokens": 101}, ["max_new_tokens", "1 to 100", "101"]),
        ({"temperature": -0.1}, ["temperature", "at least 0", "-0.1"]),
        ({"temperature": float("nan")}, ["temperature", "nan"]),
        ({"temperature": float("inf")}, ["temperature", "inf"]),
        ({"top_p": 0.0}, ["top_p", "(0, 1]", "0.0"]),
        ({"top_p": 1.5}, ["top_p", "1.5"]),
        ({"top_k": -1}, ["top_k", "-1"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"seed": 2**64}, ["seed", "18446744073709551616"]),
        ({"timeout_s": 0.0}, ["timeout_s", "positive", "0.0"]),
        ({"stop_sequences": [""]}, ["stop_sequences", "1 to 256 bytes", "''"]),
        ({"stop_sequences": ["x" * 257]}, ["stop_sequences", "1 to 256 bytes"]),
        ({"stop_sequences": ["x"] * 17}, ["stop_sequences", "at most 16", "17"]),
    ],
)
def test_what_breaks_a_rule_is_refused_with_field_rule_and_value(fields, words):
    with pytest.raises(RequestError) as caught:
        prepared(**fields)
    assert caught.value.field == words[0]
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"host": ""},
        {"port": -1},
        {"port": 65536},
        {"max_batch_size": 0},
        {"max_queue": True},
        {"grace_s": float("inf")},
        {"flush_interval_s": -1.0},
    ],
)
def test_a_config_that_breaks_a_rule_is_refused_at_birth(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        ServingConfig(**fields)
