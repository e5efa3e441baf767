"""Corpora become token streams and lanes without losing or inventing a token."""

import lzma

import numpy as np
import pytest

from spiketrain.runtime.errors import DataError
from spiketrain.training.data import Lanes, documents, encode_corpus, read_text
from spiketrain.training.tokenizer import train_tokenizer


def test_documents_end_at_separator_lines():
    text = "One\n\ntwo\n<|endoftext|>\nThree <|endoftext|> four\n<|endoftext|>\n"
    assert documents(text) == ["One\n\ntwo", "Three <|endoftext|> four"]
    assert documents("no end") == ["no end"]
    assert documents("a\n<|endoftext|>") == ["a"]


def test_a_corpus_is_encoded_document_by_document_and_cached(tmp_path):
    path = tmp_path / "text.txt.xz"
    path.write_bytes(lzma.compress(b"ab\n<|endoftext|>\nc\n<|endoftext|>\n"))
    calls = []

    def encode(text):
        calls.append(text)
        return [ord(c) for c in text]

    for _ in range(2):
        stream = encode_corpus(path, encode, 0, tmp_path / "cache", "key")
        assert stream.tolist() == [97, 98, 0, 99, 0]
    assert calls == ["ab", "c"]
    encode_corpus(path, encode, 0, tmp_path / "cache", "another tokenizer")
    assert len(calls) == 4


def test_text_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"ok \xff")
    with pytest.raises(ValueError, match=r"bad\.txt.*byte 3"):
        read_text(path)


def test_lanes_read_every_stretch_in_order():
    lanes = Lanes(np.arange(103, dtype=np.int32), batch=2, steps=10)
    inputs, targets, begins = lanes.chunk(0)
    assert begins
    assert np.array_equal(targets, inputs + 1)
    after, _, begins = lanes.chunk(1)
    assert not begins
    assert np.array_equal(after[:, 0], targets[:, -1])
    seen = np.concatenate([lanes.chunk(i)[0][0] for i in range(lanes.chunks)])
    assert np.array_equal(seen, np.arange(50))


def test_epochs_cut_elsewhere_but_stay_in_the_stream():
    lanes = Lanes(np.arange(103, dtype=np.int32), batch=2, steps=10)
    first, second = lanes.chunk(0)[0], lanes.chunk(lanes.chunks)[0]
    assert not np.array_equal(first, second)
    assert second.max() < 103


def test_a_stream_too_short_is_refused():
    with pytest.raises(ValueError, match="too few"):
        Lanes(np.arange(10, dtype=np.int32), batch=2, steps=10)


def test_a_trained_tokenizer_gives_the_text_back(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    text = 'Once upon  a time,\n\n"Yes," said the hen.\n 1 2 \u00e9 \U0001f98a end' * 20
    (tmp_path / "t.txt").write_text(text + "\n<|endoftext|>\n", encoding="utf-8")
    train_tokenizer(tmp_path / "t.txt", tmp_path / "out" / "tokenizer.model", 285)
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "out/tokenizer.model"))
    assert model.decode(model.encode(text)) == text
    assert model.id_to_piece(model.eos_id()) == "<|endoftext|>"
    assert model.eos_id() not in model.encode("a <|endoftext|> b")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["tokenizer.model"]


def test_a_vocabulary_out_of_reach_is_refused(tmp_path):
    (tmp_path / "t.txt").write_text("a b c")
    with pytest.raises(ValueError, match=r"vocab_size must fit .* got 5000: Vocabulary"):
        train_tokenizer(tmp_path / "t.txt", tmp_path / "tokenizer.model", 5000)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"caf\xe9", r"a\.txt: must be UTF-8, is not at byte 3"),
        ("a.txt.xz", b"plain", r"a\.txt\.xz: must be an intact \.xz file"),
        ("a.txt", b"", r"a\.txt: must have text, is empty"),
        ("a.txt", b"\n<|endoftext|>\n", r"a\.txt: must have text, is empty"),
    ],
)
def test_a_file_that_holds_no_text_is_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        encode_corpus(tmp_path / name, lambda text: [1], 0, None, "")
