import json
import lzma
import shutil
from pathlib import Path

import pytest

from spiketrain.evaluation.sources import open_source
from spiketrain.evaluation.words import WordTokenizer, load_words, wikitext2_words
from spiketrain.runtime.errors import DataError, TokenizerError

WIKITEXT2 = Path(__file__).parents[2] / "data" / "wikitext2"


def test_wikitext2_is_found_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKETRAIN_DATA", str(WIKITEXT2.parent))
    source = open_source("wikitext2")
    found = list(source)
    assert "".join(document.text for document in found) == (WIKITEXT2 / "test.txt").read_text()
    assert [document.text.split()[1] for document in found] == ["Robert", "Du", "<unk>"]
    assert source.line_ends
    packed = tmp_path / "wikitext2"
    packed.mkdir()
    (packed / "valid.txt.xz").write_bytes(lzma.compress((WIKITEXT2 / "valid.txt").read_bytes()))
    monkeypatch.setenv("SPIKETRAIN_DATA", str(tmp_path))
    assert len(list(open_source("wikitext2", "valid"))) == 1


def test_without_wikitext2_the_error_says_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.delenv("SPIKETRAIN_DATA", raising=False)
    with pytest.raises(DataError, match=r"put train\.txt, valid\.txt and test\.txt"):
        open_source("wikitext2")
    monkeypatch.setenv("SPIKETRAIN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"wikitext2: must hold test\.txt or test\.txt\.xz"):
        open_source("wikitext2")


def test_a_folder_is_its_files_in_order(tmp_path):
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "and", "id": 3}\n')
    (tmp_path / "readme.md").write_text("not read")
    seen = []
    source = open_source(str(tmp_path))
    source.on_progress = lambda done, total: seen.append((done, total))
    assert [document.text for document in source] == ["one", "and", "two"]
    size = (tmp_path / "a.jsonl").stat().st_size + 3
    assert seen[-1] == (size, size)
    first = source.hash
    (tmp_path / "b.txt").write_text("three")
    list(source)
    assert source.hash != first


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"must have files \.txt.*, has none"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    "line", ["[]", "{}", '{"text": 3}', "{", '{"text": "\\ud800"}', "null", '"text"']
)
def test_a_bad_line_is_named(tmp_path, line):
    (tmp_path / "x.jsonl").write_text('{"text": "ok"}\n' + line + "\n")
    with pytest.raises(DataError, match="line 2 must be a JSON object with a string 'text'"):
        list(open_source(str(tmp_path / "x.jsonl")))


def test_a_binary_file_is_no_text(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"ELF\0\1")
    with pytest.raises(DataError, match="must be text, got byte 0x00 at byte 3"):
        list(open_source(str(tmp_path / "x.txt")))


def test_json_lines_count_their_text(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "d\u00e9j\u00e0 vu"}) + "\n\n")
    (document,) = open_source(str(tmp_path / "x.jsonl"))
    assert (document.num_bytes, document.num_words, document.ended) == (9, 2, True)


def test_words_are_numbered_as_they_appear(monkeypatch):
    monkeypatch.setenv("SPIKETRAIN_DATA", str(WIKITEXT2.parent))
    numbered = {}
    for split in ("train", "valid", "test"):
        with (WIKITEXT2 / f"{split}.txt").open(encoding="utf-8") as file:
            for line in file:
                for word in [*line.split(), "<eos>"]:
                    numbered.setdefault(word, len(numbered))
    words = wikitext2_words(len(numbered))
    text = (WIKITEXT2 / "test.txt").read_text("utf-8")
    expected = [numbered[word] for line in text.splitlines() for word in [*line.split(), "<eos>"]]
    assert words.encode(text) == expected
    assert words.decode(expected).split() == text.split()
    with pytest.raises(DataError, match="the model has 7 tokens and no tokenizer"):
        wikitext2_words(7)


def test_an_unlisted_word_is_unknown_or_refused(tmp_path):
    (tmp_path / "words.txt").write_text("<unk>\n<eos>\nowl\n")
    words = load_words(tmp_path / "words.txt")
    assert words.encode("an owl\nowl") == [0, 2, 1, 2]
    with pytest.raises(TokenizerError, match="got 'an'"):
        WordTokenizer(["owl", "<eos>"]).encode("an owl")
    with pytest.raises(TokenizerError, match="must have <eos>"):
        WordTokenizer(["owl"])


def test_a_word_list_may_have_the_separator_as_a_word(tmp_path):
    listed = ["<|endoftext|>", "<unk>", "<eos>", "<|endoftext|>1", "owl"]
    for order in (listed, listed[1:] + listed[:1], listed[1:3] + listed[:1] + listed[3:]):
        for end in ("", "\n"):
            (tmp_path / "words.txt").write_text("\n".join(order) + end)
            words = load_words(tmp_path / "words.txt")
            assert words.vocab_size == 5
            assert words.encode(" ".join(order)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<eos>\nan owl\n<unk>\n", "line 2 must be one word, got an owl"),
        ("<eos>\n\n<unk>\n", "line 2 must be one word, got"),
        (
            "<eos>\n<|endoftext|>\nowl\nfox\nowl\n",
            "line 5 must be a further word, got 'owl' of line 3",
        ),
    ],
)
def test_a_word_list_whose_lines_are_not_its_ids_is_refused(tmp_path, content, message):
    (tmp_path / "words.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        load_words(tmp_path / "words.txt")


def test_an_unknown_name_is_told_what_there_is():
    with pytest.raises(
        DataError, match="wikitext9: must be readable, a file, a folder or wikitext2"
    ):
        open_source("wikitext9")


def test_copies_of_the_corpus_agree(tmp_path, monkeypatch):
    shutil.copytree(WIKITEXT2, tmp_path / "wikitext2")
    monkeypatch.setenv("SPIKETRAIN_DATA", str(tmp_path))
    first, second = open_source("wikitext2"), open_source(str(WIKITEXT2 / "test.txt"))
    list(first), list(second)
    assert first.hash == second.hash
