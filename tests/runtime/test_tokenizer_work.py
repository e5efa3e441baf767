"""Which tokenizers may be driven to work out of proportion, by what their descriptions say."""

import base64
import io
from pathlib import Path

import pytest

from spiketrain.runtime.tokenizer import parse_tokenizer
from spiketrain.runtime.tokenizer_work import (
    KNOWN_PATTERNS,
    unbounded_part,
    unbounded_sentencepiece,
)

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def described(normalizer=None, pre_tokenizer=None, model=None):
    return {
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "model": model or {"type": "BPE", "vocab": {}, "merges": []},
    }


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}


def replace(content, **pattern):
    return {"type": "Replace", "pattern": pattern, "content": content}


def charsmap(entry):
    table = (4).to_bytes(4, "little") + bytes(4) + b"a\0" + entry + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}


@pytest.mark.parametrize(
    "description",
    [
        described(),
        described({"type": "Sequence", "normalizers": [{"type": "NFC"}]}, split(LLAMA_3)),
        described(replace("\u2581", String=" ")),
        described({"type": "Prepend", "prepend": "\u2581"}),
        described(charsmap(b"ss")),
        described(None, {"type": "Sequence", "pretokenizers": [split(r"\p{N}{1,3}")]}),
        described(model={"type": "WordPiece", "max_input_chars_per_word": 100}),
        described(model={"type": "Unigram", "vocab": [["\u2581the", -1.0]]}),
    ],
)
def test_published_tokenizers_are_in_proportion_to_the_text(description):
    assert unbounded_part(description) is None


@pytest.mark.parametrize(
    ("description", "part"),
    [
        (described(replace("b", Regex="(a+)+$")), "normalizer Replace"),
        (described(replace("b", Regex="a+$")), "normalizer Replace"),
        (described(replace("b", String="")), "normalizer Replace"),
        (described(replace("b" * 99, String="a")), "normalizer Replace"),
        (
            described({"type": "Sequence", "normalizers": [replace("aa", String="a")] * 9}),
            "normalizer Replace",
        ),
        (described(charsmap(b"s" * 9999)), "normalizer Precompiled"),
        (described({"type": "Precompiled", "precompiled_charsmap": "%"}), "normalizer Precompiled"),
        (described({"type": "Unheard"}), "normalizer Unheard"),
        (described({"type": "Sequence", "normalizers": [3]}), "normalizer None"),
        (described(None, split("(x+x+)+y")), "pre_tokenizer Split"),
        (described(None, {"type": "Unheard"}), "pre_tokenizer Unheard"),
        (
            described(model={"type": "WordPiece", "max_input_chars_per_word": 10**9}),
            "model WordPiece",
        ),
        (described(model={"type": "Unigram", "vocab": [["a" * 9999, 0.0]]}), "model Unigram"),
    ],
)
def test_what_is_not_known_to_be_harmless_is_named(description, part):
    assert unbounded_part(description) == part


@pytest.mark.parametrize("pattern", sorted(KNOWN_PATTERNS))
@pytest.mark.parametrize(
    "unit", [" ", "a", "A", "1", "'", "\n", "é", "中", "a1", "Aa ", "\u0301", "\t\n"]
)
def test_a_known_pattern_takes_each_run_of_a_text_in_few_tries(pattern, unit):
    """Onig gives up a match after ten million tries: quadratic ones would, linear ones do not."""
    tokenizers = pytest.importorskip("tokenizers")
    splitter = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    text = unit * (60_000 // len(unit)) + "\u00a7x"
    assert "".join(piece for piece, _ in splitter.pre_tokenize_str(text)) == text


def sentencepiece_with(rules):
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the fox and the crane sat by the river", "a fine tail"] * 9),
        model_writer=model,
        vocab_size=64,
        hard_vocab_limit=False,
        minloglevel=2,
        **rules,
    )
    return model.getvalue()


def rules_file(folder, text):
    path = folder / "rules.tsv"
    path.write_text("61\t" + " ".join(f"{ord(letter):X}" for letter in text) + "\n")
    return {"normalization_rule_tsv": str(path)}


def test_sentencepiece_models_are_in_proportion_to_the_text():
    for rules in ({}, {"normalization_rule_name": "identity"}):
        assert unbounded_sentencepiece(sentencepiece_with(rules), [b"the"]) is None


def test_a_sentencepiece_model_that_makes_long_texts_of_short_ones_is_named(tmp_path):
    short = sentencepiece_with(rules_file(tmp_path, "b" * 9))
    long = sentencepiece_with(rules_file(tmp_path, "b" * 2000))
    assert unbounded_sentencepiece(short, [b"the"]) is None
    assert unbounded_sentencepiece(long, [b"the"]) == "normalizer"
    assert unbounded_sentencepiece(short, [b"a" * 9999]) == "model"
    repeated = long + bytes([3 << 3 | 2, 0])  # the same field again, empty: libraries merge them
    assert unbounded_sentencepiece(repeated, [b"the"]) == "normalizer"
    assert parse_tokenizer(Path("tokenizer.model"), long).unbounded == "normalizer"


def test_damaged_models_end_the_search():
    model = sentencepiece_with({})
    for size in range(0, len(model), 997):
        unbounded_sentencepiece(model[:size], [])
