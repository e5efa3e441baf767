import hashlib
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

import spiketrain.evaluation.corpus as corpus_module
from spiketrain.evaluation.corpus import SEPARATOR, Corpus
from spiketrain.runtime.errors import DataError

TWO = f"First\n\ntale\n{SEPARATOR}\nSecond tale\n{SEPARATOR}\n"


def documents(tmp_path, content, name="text.txt"):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    corpus = Corpus(path)
    return list(corpus), corpus


def test_a_document_ends_before_the_newline_of_its_separator(tmp_path):
    found, _ = documents(tmp_path, TWO)
    assert [(d.text, d.ended) for d in found] == [("First\n\ntale", True), ("Second tale", True)]


def test_bytes_and_words_count_the_separator_line(tmp_path):
    found, _ = documents(tmp_path, TWO)
    assert [d.num_bytes for d in found] == [12 + 14, 12 + 14]
    assert [d.num_words for d in found] == [3, 3]


def test_a_text_after_the_last_separator_keeps_its_newline(tmp_path):
    found, _ = documents(tmp_path, f"a\n{SEPARATOR}\nb\n")
    assert [(d.text, d.ended, d.num_bytes) for d in found] == [("a", True, 16), ("b\n", False, 2)]


def test_a_separator_inside_a_line_is_text(tmp_path):
    found, _ = documents(tmp_path, f"a {SEPARATOR}\n{SEPARATOR} b\n")
    assert [d.text for d in found] == [f"a {SEPARATOR}\n{SEPARATOR} b\n"]


def test_a_last_separator_needs_no_newline(tmp_path):
    found, _ = documents(tmp_path, f"a\n{SEPARATOR}")
    assert [(d.text, d.ended, d.num_bytes) for d in found] == [("a", True, 15)]


def test_line_ends_are_kept(tmp_path):
    found, _ = documents(tmp_path, "a\r\nb\r\n")
    assert found[0].text == "a\r\nb\r\n"


lines = st.lists(st.sampled_from(["", "a b", "d\u00e9j\u00e0", SEPARATOR, "\u2003x"]), max_size=12)


@given(lines=lines, end=st.sampled_from(["", "\n"]))
def test_every_byte_and_word_is_counted_once(tmp_path_factory, lines, end):
    text = "\n".join(lines) + end
    if not text:
        return
    found, corpus = documents(tmp_path_factory.mktemp("corpus"), text)
    assert sum(d.num_bytes for d in found) == len(text.encode())
    assert sum(d.num_words for d in found) == len(text.split())
    assert corpus.hash == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    joined = "".join(d.text + ("\n" + SEPARATOR + "\n") * d.ended for d in found)
    assert joined.split() == text.split()


@given(
    parts=st.lists(st.sampled_from(["one", "two\n\nlines", "d\u00e9j\u00e0 vu"]), max_size=5),
    end=st.booleans(),
)
def test_training_splits_alike(tmp_path_factory, parts, end):
    training_data = pytest.importorskip("spiketrain.training.data")
    text = f"\n{SEPARATOR}\n".join(parts) + (f"\n{SEPARATOR}\n" if end and parts else "")
    if not text:
        return
    found, _ = documents(tmp_path_factory.mktemp("corpus"), text)
    assert [d.text for d in found if d.text] == training_data.documents(text)


def test_a_packed_text_reads_like_a_plain_one(tmp_path):
    plain, corpus = documents(tmp_path, TWO)
    packed, packed_corpus = documents(tmp_path, lzma.compress(TWO.encode()), "text.txt.xz")
    assert packed == plain
    assert packed_corpus.hash == corpus.hash


def test_progress_reaches_the_size_of_the_file(tmp_path):
    (tmp_path / "t").write_text(TWO)
    seen = []
    assert len(list(Corpus(tmp_path / "t", lambda done, total: seen.append((done, total))))) == 2
    assert seen[-1] == (len(TWO), len(TWO))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "must have text, is empty"),
        ("bad.txt", b"ok\n<|endoftext|>\nab\xff\n", "must be UTF-8, got byte 0xff at byte 19"),
        ("cut.txt", "caf\u00e9".encode()[:-1], "must be UTF-8, got byte 0xc3 at byte 3"),
        ("bad.xz", b"not xz at all", "must be an intact .xz file"),
        ("cut.xz", lzma.compress(b"text" * 99)[:-9], "must be an intact .xz file"),
    ],
)
def test_a_text_that_cannot_be_read_is_an_error_that_names_it(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message) as caught:
        documents(tmp_path, content, name)
    assert name in str(caught.value)


def test_a_missing_file_and_a_directory_are_named(tmp_path):
    with pytest.raises(DataError, match="absent: must be readable, got No such file"):
        list(Corpus(tmp_path / "absent"))
    with pytest.raises(DataError, match="must be readable, got Is a directory"):
        list(Corpus(tmp_path))


def test_a_document_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module, "MAX_DOCUMENT_BYTES", 20)
    text = f"{'x' * 19}\n{SEPARATOR}\n"
    assert len(documents(tmp_path, text)[0]) == 1
    with pytest.raises(DataError, match="must have at most 20 bytes, the one at byte 34"):
        documents(tmp_path, text + "y" * 21)
