import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from spiketrain.evaluation.corpus import SEPARATOR
from spiketrain.evaluation.measure import measure_perplexity
from spiketrain.evaluation.protocols import settle
from spiketrain.evaluation.sources import open_source
from spiketrain.runtime.errors import DataError

END = 256


class FakeModel:
    """Gives every token the same chance; remembers what it was fed."""

    vocab_size = 257
    fingerprint = "sha256:fake"
    dial = 1.0

    def __init__(self, eos_token_ids=(END,)):
        self.eos_token_ids = eos_token_ids
        self.fed = []

    def new_state(self):
        return []

    def forward(self, state, token_ids, last_only=False):
        state.extend(token_ids)
        self.fed.extend(map(int, token_ids))
        logits = np.zeros((len(token_ids), self.vocab_size), np.float32)
        return logits[-1] if last_only else logits

    def reset_activity(self):
        pass

    def activity(self):
        return SimpleNamespace(firing_rate=0.25, layers=[SimpleNamespace(events=1, neurons=4)])


class Bytes:
    """A tokenizer whose ids are bytes."""

    vocab_size = 257
    hash = "sha256:bytes"

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids, continues=False):
        return bytes(i for i in ids if i != END).decode(errors="replace")


def measure(tmp_path, text, model=None, **options):
    (tmp_path / "text.txt").write_bytes(text.encode())
    model = model or FakeModel()
    settings = settle("carry", prefix=model.eos_token_ids[0] if model.eos_token_ids else None)
    source = open_source(str(tmp_path / "text.txt"))
    return measure_perplexity(model, Bytes(), source, settings, **options)


def test_every_token_is_scored_after_an_end_of_text(tmp_path):
    model = FakeModel()
    found = measure(tmp_path, f"ab\n{SEPARATOR}\nc\n{SEPARATOR}\n", model)
    assert model.fed == [END, *b"ab", END, *b"c"]
    assert found.tokens == 5
    assert found.documents == 2
    assert found.nll_nats == pytest.approx(5 * math.log(257))


def test_the_figures_agree_with_each_other(tmp_path):
    found = measure(tmp_path, f"ab cd\n{SEPARATOR}\n")
    assert found.words == 3
    assert found.bytes == 20
    assert found.token_perplexity == pytest.approx(257)
    assert found.word_perplexity == pytest.approx(math.exp(found.nll_nats / 3))
    assert found.bits_per_byte == pytest.approx(6 * math.log2(257) / 20)
    assert found.protocol == "carry"


def test_without_an_end_of_text_the_first_token_is_given(tmp_path):
    model = FakeModel(eos_token_ids=())
    found = measure(tmp_path, "abc", model)
    assert model.fed == [*b"ab"]
    assert found.tokens == 2


def test_separators_need_an_end_of_text(tmp_path):
    with pytest.raises(DataError, match="must name an eos_token_id"):
        measure(tmp_path, f"ab\n{SEPARATOR}\n", FakeModel(eos_token_ids=()))


@pytest.mark.parametrize("eos", [(END,), ()])
def test_a_limit_cuts_the_text_there(tmp_path, eos):
    found = measure(tmp_path, "one two three", FakeModel(eos), limit=6)
    assert found.tokens == 6
    assert found.words == 2
    assert found.bytes == 6


def test_a_limit_does_not_change_the_hash_of_the_text(tmp_path):
    text = f"ab\n{SEPARATOR}\ncd\n{SEPARATOR}\n"
    cut, whole = measure(tmp_path, text, limit=1), measure(tmp_path, text)
    assert cut.data_hash == whole.data_hash
    assert measure(tmp_path, text, limit=6).nll_nats == whole.nll_nats


def test_an_empty_document_scores_nothing(tmp_path):
    model = FakeModel()
    found = measure(tmp_path, f"a\n{SEPARATOR}\n{SEPARATOR}\nb", model)
    assert model.fed == [END, *b"a", END]
    assert found.tokens == 3
    assert found.bytes == 31


def test_a_text_without_tokens_is_an_error(tmp_path):
    with pytest.raises(DataError, match="must have tokens to score"):
        measure(tmp_path, f"{SEPARATOR}\n")


def test_a_tokenizer_larger_than_the_model_is_an_error(tmp_path):
    model = FakeModel()
    model.vocab_size = 100
    with pytest.raises(DataError, match="at most the model's 100 tokens, has 257"):
        measure(tmp_path, "a", model)


def test_an_endless_perplexity_is_null_in_json(tmp_path):
    class Certain(FakeModel):
        def forward(self, state, token_ids, last_only=False):
            logits = super().forward(state, token_ids)
            logits[:, 0] = 3e4
            return logits

    values = measure(tmp_path, "a b", Certain()).to_dict()
    assert values["token_perplexity"] is None
    assert json.loads(json.dumps(values, allow_nan=False))["tokens"] == 3
