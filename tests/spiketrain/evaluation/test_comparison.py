import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import tiny

from spiketrain import runtime
from spiketrain.evaluation.comparison import compare_documents, compare_tokens
from spiketrain.evaluation.measure import measure_perplexity
from spiketrain.evaluation.protocols import settle
from spiketrain.evaluation.sources import open_source
from spiketrain.runtime.errors import DataError

TEXT = Path(__file__).parents[2] / "data" / "wikitext2" / "test.txt"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    paths = (
        tiny.tiny_egru_package(folder / "a"),
        tiny.tiny_egru_package(folder / "b", seed=1, hidden_sizes=(16,)),
    )
    return tuple(map(runtime.load_model, paths))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    pieces = TEXT.read_text("utf-8")[:1500].split(" . ")
    path.write_text("\n<|endoftext|>\n".join(pieces), encoding="utf-8")
    return path


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def test_every_figure_agrees_with_a_plain_loop(models, text):
    settings = settle("rolling", prefix=256)
    found = compare_tokens(*models, models[0].tokenizer, open_source(str(text)), settings)
    documents, divergence, same, apart = [], [], [], []
    for piece in text.read_text("utf-8").split("\n<|endoftext|>\n"):
        states = [model.new_state() for model in models]
        nats = np.zeros(2)
        ids = [256, *models[0].tokenizer.encode(piece)]
        for token, target in itertools.pairwise(ids):
            p, q = (
                log_softmax(model.step([state], [token])[0])
                for model, state in zip(models, states, strict=True)
            )
            nats -= (p[target], q[target])
            divergence.append(float((np.exp(q) * (q - p)).sum()))
            same.append(p.argmax() == q.argmax())
            apart.append(abs(p[target] - q[target]))
        documents.append((*nats, len(ids) - 1, len(piece.encode())))
    ours, theirs, tokens, sizes = np.array(documents).T
    bits = math.log(2) * sizes.sum()
    difference = (ours.sum() - theirs.sum()) / bits
    residues = (ours - theirs) - (ours - theirs).sum() / tokens.sum() * tokens
    error = math.sqrt(len(documents) / (len(documents) - 1) * (residues**2).sum()) / bits
    assert len(documents) >= 10
    assert found.interval_over == "documents"
    assert found.bits_per_byte == pytest.approx(ours.sum() / bits)
    assert found.difference_bits_per_byte == pytest.approx(difference)
    assert found.difference_low == pytest.approx(difference - 1.959964 * error, rel=1e-6)
    assert found.difference_high == pytest.approx(difference + 1.959964 * error, rel=1e-6)
    assert found.kl_divergence == pytest.approx(np.mean(divergence))
    assert found.same_top_1 == pytest.approx(np.mean(same))
    assert found.largest_nll_difference == pytest.approx(max(apart))
    assert found.tokens == tokens.sum()


@pytest.mark.parametrize("limit", [None, 333])
def test_a_model_against_itself_differs_in_nothing(models, text, limit):
    settings = settle("carry", prefix=256)
    arguments = (models[0].tokenizer, open_source(str(text)), settings, limit)
    found = compare_tokens(models[0], models[0], *arguments)
    assert (found.difference_bits_per_byte, found.kl_divergence, found.same_top_1) == (0, 0, 1)
    assert found.largest_nll_difference == 0
    alone = measure_perplexity(models[0], *arguments[:1], open_source(str(text)), settings, limit)
    assert (found.bits_per_byte, found.tokens) == (alone.bits_per_byte, alone.tokens)
    assert found.data_hash == alone.data_hash


def test_swapping_the_models_turns_the_difference_around(models, text):
    settings = settle("stride", ctx=64, stride=32)
    one, two = (
        compare_tokens(*pair, models[0].tokenizer, open_source(str(text)), settings)
        for pair in (models, models[::-1])
    )
    assert one.difference_bits_per_byte == -two.difference_bits_per_byte
    assert one.difference_low == -two.difference_high
    assert one.same_top_1 == two.same_top_1


@pytest.mark.parametrize("limit", [None, 401])
@pytest.mark.parametrize(
    ("protocol", "options"),
    [("stride", {"ctx": 64, "stride": 40}), ("half-window", {"ctx": 50}), ("rolling", {})],
)
def test_spans_side_by_side_change_no_figure(models, text, protocol, options, limit):
    settings = settle(protocol, prefix=256 if protocol == "rolling" else None, **options)
    one, many = (
        compare_tokens(*models, models[0].tokenizer, open_source(str(text)), settings, limit, batch)
        for batch in (1, 4)
    )
    assert many == one
    assert limit is None or one.tokens == limit


def test_a_carried_state_leaves_nothing_to_put_side_by_side(models, text):
    with pytest.raises(DataError, match="batch must be 1 in protocol carry, got 2"):
        compare_tokens(
            *models, models[0].tokenizer, open_source(str(text)), settle("carry"), batch=2
        )


def test_documents_are_paired_where_tokenizers_differ(models, text):
    settings = settle("rolling", prefix=256)
    tokenizer = models[0].tokenizer
    sources = (open_source(str(text)), open_source(str(text)))
    arguments = ((tokenizer, tokenizer), sources, (settings, settings))
    found = compare_documents(*models, *arguments)
    assert compare_documents(*models, *arguments, batch=3) == found
    paired = compare_tokens(*models, tokenizer, open_source(str(text)), settings)
    assert found.difference_bits_per_byte == pytest.approx(paired.difference_bits_per_byte)
    width = found.difference_high - found.difference_low
    assert width == pytest.approx(paired.difference_high - paired.difference_low, rel=0.2)
    assert found.kl_divergence is None


def test_another_vocabulary_is_refused(models, text, tmp_path):
    other = runtime.load_model(tiny.tiny_egru_package(tmp_path / "o", vocab=300))
    source = open_source(str(text))
    with pytest.raises(DataError, match="baseline must have the model's 257 tokens, has 300"):
        compare_tokens(models[0], other, models[0].tokenizer, source, settle("carry"))
