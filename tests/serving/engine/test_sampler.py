import numpy as np
import pytest
from fake_model import END_OF_TEXT, VOCAB_SIZE, ByteTokenizer, FakeModel

from spiketrain.runtime.errors import RequestError
from spiketrain.runtime.sampling import SamplingParams, sample
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.sampler import Sampler
from spiketrain.serving.errors import NothingAllowed
from spiketrain.serving.request.constraint import Grammars
from spiketrain.serving.request.preparation import prepare
from spiketrain.serving.request.request import Defaults, Request

LOGITS = np.linspace(3, -3, VOCAB_SIZE).astype(np.float32)  # token 0 is the likeliest


def prepared(**fields):
    grammars = Grammars(ByteTokenizer(), VOCAB_SIZE, (END_OF_TEXT,))
    request = Request(fields.pop("prompt", "hi"), **{"temperature": 0.0, "seed": 1, **fields})
    return prepare(request, Defaults(), ServingConfig(), FakeModel, ByteTokenizer(), grammars)


def sampler(**fields):
    request = prepared(**fields)
    return Sampler(request.sampling, request.rules, request.constraint, request.prompt_ids)


def draw(sampler, logits, position, new_tokens):
    row = sampler.adjusted(logits, new_tokens)
    return sampler.take(sample(row, sampler.sampling, position), logits)


def choose(logits=LOGITS, new_tokens=0, **fields):
    return draw(sampler(**fields), logits, 5, new_tokens)


def test_without_rules_a_token_is_what_sampling_draws():
    for position in range(20):
        drawn = draw(sampler(temperature=1.0), LOGITS, position, 0).token
        assert drawn == sample(LOGITS, SamplingParams(seed=1), position)


def test_logits_are_left_as_they_were():
    logits = LOGITS.copy()
    logits.setflags(write=False)
    assert choose(logits, allowed_token_ids=(7, 9), logit_bias={9: 1.0}).token == 9


def test_a_bias_moves_a_token():
    assert choose(logit_bias={200: 10.0}).token == 200
    assert choose(logit_bias={0: -100.0}).token == 1


def test_only_allowed_tokens_are_chosen():
    drawn = {choose(temperature=9.0, seed=s, allowed_token_ids=(7, 8)).token for s in range(30)}
    assert drawn == {7, 8}


def test_seen_tokens_of_the_prompt_are_penalised():
    assert choose(prompt=[0, 1], presence_penalty=5.0).token == 2
    assert choose(prompt=[0, 1], repetition_penalty=2.0).token == 2
    assert choose(prompt=[0, 1, 7, 7], presence_penalty=5.0, penalty_window=2).token == 0


def test_chosen_tokens_are_penalised():
    repeated = sampler(frequency_penalty=100.0)
    assert [draw(repeated, LOGITS, at, at).token for at in range(5)] == [0, 1, 2, 3, 4]


def test_an_end_is_not_chosen_before_min_new_tokens():
    wants_to_end = LOGITS.copy()
    wants_to_end[[END_OF_TEXT, 40]] = (9.0, 8.0)
    fields = {"min_new_tokens": 3, "stop_token_ids": (40,)}
    assert choose(wants_to_end, 2, **fields).token == 0
    assert choose(wants_to_end, 3, **fields).token == END_OF_TEXT


def test_a_constraint_bars_tokens_until_it_is_complete():
    constrained = sampler(regex="[x-z]{2}")
    assert [draw(constrained, LOGITS, at, at).token for at in range(2)] == [ord("x")] * 2
    assert constrained.complete
    assert not sampler().complete


def test_rules_that_leave_no_token_are_an_error():
    with pytest.raises(NothingAllowed, match="leave no token"):
        choose(regex="a", allowed_token_ids=(ord("b"),))


def test_logits_that_are_not_finite_are_not_blamed_on_the_rules():
    with pytest.raises(ValueError, match="logits must be finite"):
        choose(np.full(VOCAB_SIZE, -np.inf, np.float32), logit_bias={1: 1.0})


def test_logprobs_are_of_the_models_own_distribution():
    plain = choose(logprobs=True, top_logprobs=2)
    moved = choose(logprobs=True, top_logprobs=2, logit_bias={200: 10.0}, temperature=0.5)
    assert choose().logprob is None
    assert (plain.logprob.token, plain.logprob.rank) == (0, 1)
    assert (moved.logprob.token, moved.logprob.rank) == (200, 201)
    assert moved.logprob.top == plain.logprob.top
    assert [token for token, _ in plain.logprob.top] == [0, 1]
    total = np.exp(LOGITS.astype(float)).sum()
    assert moved.logprob.logprob == pytest.approx(LOGITS[200] - np.log(total))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"min_p": 1.5}, "min_p"),
        ({"typical_p": 0.0}, "typical_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"frequency_penalty": 200.0}, "frequency_penalty"),
        ({"presence_penalty": float("nan")}, "presence_penalty"),
        ({"penalty_window": 4}, "penalty_window"),
        ({"penalty_window": 0, "presence_penalty": 1.0}, "penalty_window"),
        ({"logit_bias": {VOCAB_SIZE: 1.0}}, "logit_bias"),
        ({"logit_bias": {1: float("inf")}}, "logit_bias"),
        ({"logit_bias": dict.fromkeys(range(1025), 1.0)}, "logit_bias"),
        ({"allowed_token_ids": (-1,)}, "allowed_token_ids"),
        ({"allowed_token_ids": (1,) * (VOCAB_SIZE + 1)}, "allowed_token_ids"),
        ({"stop_token_ids": (VOCAB_SIZE,)}, "stop_token_ids"),
        ({"stop_token_ids": (1,) * 17}, "stop_token_ids"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens"),
        ({"time_limit_s": 0.0}, "time_limit_s"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"regex": "a", "grammar": "b"}, "grammar"),
        ({"regex": "a", "ignore_eos": True}, "ignore_eos"),
        ({"regex": "a", "min_new_tokens": 1}, "min_new_tokens"),
        ({"regex": "a" * (64 * 1024 + 1)}, "regex"),
        ({"json_schema": ""}, "json_schema"),
        ({"regex": "\udcff"}, "regex"),
    ],
)
def test_a_parameter_that_breaks_its_rule_is_refused_by_name(fields, field):
    with pytest.raises(RequestError) as caught:
        prepared(**fields)
    assert caught.value.field == field
