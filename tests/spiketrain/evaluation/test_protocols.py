import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_spikegpt
from hypothesis import given
from hypothesis import strategies as st

from spiketrain import runtime
from spiketrain.evaluation.measure import measure_perplexity
from spiketrain.evaluation.protocols import PROTOCOLS, settle, spans
from spiketrain.evaluation.sources import open_source
from spiketrain.runtime.errors import DataError
from spiketrain.runtime.scoring import token_nats

TEXT = Path(__file__).parents[2] / "data" / "wikitext2" / "test.txt"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    made = {
        "egru": tiny.tiny_egru_package(folder / "egru"),
        "spikegpt": tiny_spikegpt.tiny_spikegpt_package(folder / "spikegpt"),
    }
    return {name: runtime.load_model(path) for name, path in made.items()}


@pytest.fixture(params=["egru", "spikegpt"])
def model(request, models):
    return models[request.param]


def token_ids(model):
    return model.tokenizer.encode(TEXT.read_text("utf-8"))


def measured(model, protocol, data=TEXT, batch=1, **options):
    """The evaluation's own figures."""
    settings = settle(protocol, **options)
    return measure_perplexity(model, model.tokenizer, open_source(str(data)), settings, batch=batch)


def window_nats(model, window):
    """Nats of window[1:], from the zero state, one token at a time."""
    state, found = model.new_state(), []
    for token, target in itertools.pairwise(window):
        logits = model.step([state], [token])
        found.append(float(token_nats(logits, np.array([target]))[0]))
    return found


def test_carry_is_one_pass_over_all_tokens(model):
    ids = [256, *token_ids(model)]
    found = measured(model, "carry", prefix=256)
    nats = window_nats(model, ids)
    assert found.tokens == len(nats)
    assert found.nll_nats == pytest.approx(math.fsum(nats), rel=1e-12)
    assert found.bytes == TEXT.stat().st_size


def test_warmup_reads_the_first_tokens_without_scoring_them(model):
    ids = [256, *token_ids(model)]
    found = measured(model, "carry", prefix=256, warmup=700)
    nats = window_nats(model, ids)
    assert found.tokens == len(nats) - 700
    assert found.nll_nats == pytest.approx(math.fsum(nats[700:]), rel=1e-12)
    assert found.bytes == TEXT.stat().st_size - 700


def test_stride_is_the_loop_of_the_hugging_face_documentation(model):
    ids, max_length, stride = token_ids(model), 300, 128
    nats, prev_end_loc = [], 0
    for begin_loc in range(0, len(ids), stride):
        end_loc = min(begin_loc + max_length, len(ids))
        trg_len = end_loc - prev_end_loc
        target_ids = np.array(ids[begin_loc:end_loc])
        target_ids[:-trg_len] = -100
        per_token = window_nats(model, ids[begin_loc:end_loc])
        nats += [n for n, t in zip(per_token, target_ids[1:], strict=True) if t != -100]
        prev_end_loc = end_loc
        if end_loc == len(ids):
            break
    found = measured(model, "stride", ctx=max_length, stride=stride)
    assert found.tokens == len(nats) == len(ids) - 1
    assert found.nll_nats == pytest.approx(math.fsum(nats), rel=1e-12)


@pytest.mark.parametrize("bos", [None, 256])
def test_half_window_is_the_loop_of_llama_cpp(model, bos):
    n_ctx = 128
    tokens = token_ids(model) if bos is None else [bos, *token_ids(model)]
    nats = []
    for chunk in range(len(tokens) // n_ctx):
        window = list(tokens[chunk * n_ctx : (chunk + 1) * n_ctx])
        if bos is not None:
            window[0] = bos
        first = n_ctx // 2
        nats += window_nats(model, window)[first : first + n_ctx - 1 - first]
    found = measured(model, "half-window", ctx=n_ctx, prefix=bos)
    assert found.tokens == len(nats)
    assert found.nll_nats == pytest.approx(math.fsum(nats), rel=1e-12)


def rolling_token_windows(token_list, prefix_token, max_seq_len):
    """Disjoint (context, continuation) pairs as in lm-evaluation-harness, one token of context."""
    predicted = min(max_seq_len, len(token_list))
    pairs = [([prefix_token, *token_list[: predicted - 1]], token_list[:predicted])]
    while predicted < len(token_list):
        window_pred_len = min(len(token_list) - predicted, max_seq_len)
        window_end = predicted + window_pred_len
        pairs.append(
            (
                token_list[window_end - max_seq_len - 1 : window_end - 1],
                token_list[window_end - window_pred_len : window_end],
            )
        )
        predicted = window_end
    return [(a[: len(a) - (len(b) - 1)], b) for a, b in pairs]


@pytest.mark.parametrize("ctx", [None, 100])
def test_rolling_scores_documents_alone_in_the_windows_of_lm_eval(model, tmp_path, ctx):
    texts = [TEXT.read_text("utf-8")[:350], "An owl.", "d\u00e9j\u00e0 vu"]
    (tmp_path / "t.txt").write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    nats = []
    for text in texts:
        ids = model.tokenizer.encode(text)
        for context, continuation in rolling_token_windows(ids, 256, ctx or 10**6):
            scored = window_nats(model, context + continuation)
            nats += scored[len(context) - 1 :]
    found = measured(model, "rolling", tmp_path / "t.txt", prefix=256, ctx=ctx)
    assert found.nll_nats == pytest.approx(math.fsum(nats), rel=1e-12)
    assert found.tokens == len(nats)
    assert found.bytes == sum(len(text.encode()) for text in texts)
    assert found.words == sum(len(text.split()) for text in texts)
    assert found.documents == 3


def test_egru_published_zeroes_the_cells_every_ctx_tokens(models):
    model = models["egru"]
    ids = [256, *token_ids(model)]
    state, nats = model.new_state(), []
    for place, (token, target) in enumerate(itertools.pairwise(ids)):
        if place % 70 == 0:
            for name, array in state.arrays().items():
                if name.startswith("cell"):
                    array[:] = 0
        nats.append(float(token_nats(model.step([state], [token]), np.array([target]))[0]))
    found = measured(model, "egru-published", prefix=256)
    assert found.nll_nats == pytest.approx(math.fsum(nats), rel=1e-12)
    assert found.nll_nats != measured(model, "carry", prefix=256).nll_nats


def test_egru_published_needs_cells(models):
    with pytest.raises(DataError, match="needs an EGRU, got model_type 'spikegpt'"):
        measured(models["spikegpt"], "egru-published")


@pytest.mark.parametrize(
    ("protocol", "options"),
    [("stride", {"ctx": 90, "stride": 40}), ("half-window", {"ctx": 64}), ("rolling", {"ctx": 77})],
)
def test_windows_side_by_side_change_no_bit(model, protocol, options):
    one = measured(model, protocol, **options)
    many = measured(model, protocol, batch=5, **options)
    assert (one.nll_nats, one.tokens, one.bytes) == (many.nll_nats, many.tokens, many.bytes)


def test_carry_cannot_be_batched(models):
    with pytest.raises(DataError, match="batch must be 1 in protocol carry, got 2"):
        measured(models["egru"], "carry", batch=2)


texts = st.lists(st.lists(st.integers(0, 9), max_size=40), max_size=6)
prefixes = st.none() | st.just(99)


def scored_places(found):
    return [place for s in found for place in range(s.place, s.place + len(s.targets))]


@given(texts, prefixes, st.integers(2, 30), st.integers(1, 30), st.integers(0, 50))
def test_every_protocol_scores_what_it_says(texts, prefix, ctx, stride, warmup):
    flat = [token for ids in texts for token in ids]
    first = 0 if prefix is not None else 1
    for protocol in PROTOCOLS:
        given_stride = min(stride, ctx) if protocol == "stride" else None
        settings = settle(
            protocol,
            None if protocol == "carry" else max(ctx, 4),
            given_stride,
            0 if protocol in ("stride", "half-window") else warmup,
            prefix,
        )
        found = list(spans(texts, settings))
        places = scored_places(found)
        assert places == sorted(set(places))
        assert all(flat[s.place : s.place + len(s.targets)] == s.targets for s in found)
        assert all(s.context for s in found)
        if settings.carries:
            assert places == list(range(first + warmup, len(flat)))
            again = "cells" if protocol == "egru-published" else "carried"
            assert [s.start for s in found] == ["zero", *[again] * (len(found) - 1)][: len(found)]
        elif protocol == "stride" and settings.stride < settings.ctx:
            assert places == list(range(first, len(flat)))
        elif protocol == "rolling":
            expected, offset = [], 0
            for ids in texts:
                expected += range(offset + first + warmup, offset + len(ids))
                offset += len(ids)
            assert places == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("other",), "protocol must be one of"),
        (("carry", 5), "ctx has no meaning in protocol carry, got 5"),
        (("stride", 8, 9), "stride must be in"),
        (("rolling", 8, 2), "stride goes with protocol stride, got 2"),
        (("half-window", 3), "ctx must be at least 4"),
        (("stride", 8, 2, 1), "warmup must be 0 in stride"),
    ],
)
def test_settings_without_meaning_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        settle(*arguments)
