"""The bundled model on the whole test set of WikiText-2: three protocols against plain loops.

Skipped without $SPIKETRAIN_DATA/wikitext2/test.txt or test.txt.xz. Two minutes on an idle core; the
loops use nothing of spiketrain.evaluation: they cut the file, encode, run and add up on their own.
"""

import lzma
import os
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import spiketrain
from spiketrain import runtime
from spiketrain.evaluation.measure import measure_perplexity
from spiketrain.evaluation.protocols import settle
from spiketrain.evaluation.sources import open_source

FOLDER = Path(os.environ.get("SPIKETRAIN_DATA", "/nowhere")) / "wikitext2"
WORDS, BYTES, ARTICLES = 245_569, 1_256_449, 60  # <eos> for each line end among the words

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not any((FOLDER / name).is_file() for name in ("test.txt", "test.txt.xz")),
        reason="needs WikiText-2: $SPIKETRAIN_DATA/wikitext2/test.txt or test.txt.xz",
    ),
]


@pytest.fixture(scope="module")
def model():
    return runtime.load_model(spiketrain.bundled_model())


@pytest.fixture(scope="module")
def text():
    packed = FOLDER / "test.txt.xz"
    raw = lzma.decompress(packed.read_bytes()) if packed.is_file() else None
    found = (raw or (FOLDER / "test.txt").read_bytes()).decode()
    assert len(found.encode()) == BYTES
    assert len(found.split()) + found.count("\n") == WORDS
    return found


@pytest.fixture(scope="module")
def articles(text):
    """The text from each title to the next; a title stands between lines without words."""
    starts = [m.start(1) for m in re.finditer(r"(?<=\n)( *\n)(?= = [^=\n].* = \n *\n)", text)]
    cuts = [0, *starts, len(text)]
    found = [text[a:b] for a, b in pairwise(cuts)]
    found = [article for article in found if article.strip()]
    assert "".join(found) == text
    assert len(found) == ARTICLES
    return found


def nats_after(model, state, ids):
    """-ln p of ids[1:], each given those before it; `state` has read what came first."""
    total = []
    for at in range(0, len(ids) - 1, 1024):
        targets = np.array(ids[at + 1 : at + 1025])
        logits = model.forward(state, ids[at : at + len(targets)]).astype(np.float64)
        most = logits.max(axis=1)
        sums = np.log(np.exp(logits - most[:, None]).sum(axis=1)) + most
        total.append(sums - logits[np.arange(len(targets)), targets])
    return np.concatenate(total)


def measured(model, protocol, prefix=None, ctx=None):
    settings = settle(protocol, ctx, prefix=prefix)
    return measure_perplexity(model, model.tokenizer, open_source("wikitext2"), settings)


def agree(found, nats):
    assert found.tokens == nats.size
    assert found.nll_nats == pytest.approx(nats.sum(), rel=1e-9)
    assert found.token_perplexity == pytest.approx(np.exp(nats.mean()), rel=1e-9)


def test_carry_reads_everything_from_one_state(model, articles):
    (end,) = model.eos_token_ids
    ids = [end, *(token for article in articles for token in model.tokenizer.encode(article))]
    nats = nats_after(model, model.new_state(), ids)
    found = measured(model, "carry", prefix=end)
    agree(found, nats)
    assert (found.words, found.bytes, found.documents) == (WORDS, BYTES, ARTICLES)
    assert found.word_perplexity == pytest.approx(np.exp(nats.sum() / WORDS), rel=1e-9)
    assert found.bits_per_byte == pytest.approx(nats.sum() / np.log(2) / BYTES, rel=1e-9)


def test_rolling_reads_each_article_alone(model, articles):
    (end,) = model.eos_token_ids
    each = [
        nats_after(model, model.new_state(), [end, *model.tokenizer.encode(article)])
        for article in articles
    ]
    nats = np.concatenate(each)
    found = measured(model, "rolling", prefix=end)
    agree(found, nats)
    assert (found.words, found.bytes, found.documents) == (WORDS, BYTES, ARTICLES)
    sums, sizes = np.array([part.sum() for part in each]), np.array([part.size for part in each])
    residues = sums - nats.mean() * sizes
    error = np.sqrt(ARTICLES / (ARTICLES - 1) * (residues**2).sum()) / sizes.sum()
    assert found.standard_error_nats == pytest.approx(error, rel=1e-6)


def test_half_window_reads_disjoint_windows_and_scores_their_second_halves(model, articles):
    ids = [token for article in articles for token in model.tokenizer.encode(article)]
    windows = [ids[at : at + 512] for at in range(0, len(ids) - 511, 512)]
    nats = [nats_after(model, model.new_state(), window)[256:] for window in windows]
    agree(measured(model, "half-window"), np.concatenate(nats))
