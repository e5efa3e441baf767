"""Tokenizers of GGUF files as files of Hugging Face, or a refusal by key."""

import json

import pytest
from gguf_writer import HIDDEN, Typed, byte_tokens, llama_tensors, tiny_gguf
from tokenizers import Tokenizer

from spiketrain.lm.sources.gguf import GgufError, Source, open_gguf
from spiketrain.lm.sources.gguf.tokenizer.splits import SPLITS
from spiketrain.runtime.chat_template_file import read_chat_template

KEY = "tokenizer.ggml."
BLANK = "\u2581"


def opened(tmp_path, vocabulary: list[str] | None = None, **keys) -> Source:
    """A tiny file; keys: those of the tokenizer, without `tokenizer.ggml.`."""
    file = tiny_gguf(**{KEY + name: value for name, value in keys.items()})
    if vocabulary is not None:
        file.keys[f"{KEY}tokens"] = vocabulary
        file.keys[f"{KEY}token_type"] = keys.get("token_type", Typed(5, types_of(vocabulary)))
        file.tensors = llama_tensors(len(vocabulary))
    return open_gguf(file.write(tmp_path / "a.gguf"))


def types_of(tokens: list[str]) -> list[int]:
    return [3 if text.startswith("<") and text.endswith(">") else 1 for text in tokens]


def refusal(tmp_path, *arguments, **keys) -> str:
    with pytest.raises(GgufError) as caught:
        opened(tmp_path, *arguments, **keys)
    return str(caught.value).removeprefix(f"{tmp_path / 'a.gguf'}: ")


def tokenizer_of(source: Source) -> Tokenizer:
    return Tokenizer.from_str(source.tokenizer_files()["tokenizer.json"])


def settings_of(source: Source, name: str) -> dict:
    return json.loads(source.tokenizer_files()[f"{name}.json"])


def pieces(source: Source, text: str) -> list[str]:
    """The text as the tokenizer cuts it before merging."""
    cut = tokenizer_of(source).pre_tokenizer.pre_tokenize_str(text)
    return [text[start:end] for _, (start, end) in cut]


def sentencepiece(tmp_path, more: dict[str, float], **keys) -> Source:
    """A `llama` tokenizer: unknown, <s>, </s>, 256 bytes, and `more` tokens with their scores."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *more]
    file = tiny_gguf(
        **{
            f"{KEY}model": "llama",
            f"{KEY}tokens": tokens,
            f"{KEY}scores": [*[0.0] * 259, *more.values()],
            f"{KEY}token_type": Typed(5, [2, 3, 3, *[6] * 256, *[1] * len(more)]),
            f"{KEY}merges": None,
            f"{KEY}bos_token_id": None,
            f"{KEY}eos_token_id": None,
            **{KEY + name: value for name, value in keys.items()},
        }
    )
    file.tensors = llama_tensors(len(tokens))
    return open_gguf(file.write(tmp_path / "a.gguf"))


@pytest.mark.parametrize("name", SPLITS)
def test_every_known_split_gives_a_tokenizer_that_loses_nothing(tmp_path, name):
    tokenizer = tokenizer_of(opened(tmp_path, pre=name))
    text = "It's 12345 naïve 日本語\r\n\n  x += 1 🦊"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-2", ["It", "'s", " 1234", "  ", " x", "+=", "\n"]),
        ("smollm", ["It", "'s", " ", "1", "2", "3", "4", "  ", " x", "+=", "\n"]),
        ("qwen2", ["It", "'s", " ", "1", "2", "3", "4", "  ", " x", "+=\n"]),
        ("llama-bpe", ["It", "'s", " ", "123", "4", "  ", " x", "+=\n"]),
        ("default", ["It", "'", "s", " ", "123", "4", "  ", " x", "+=", "\n"]),
    ],
)
def test_splits_cut_texts_as_their_models_were_trained(tmp_path, name, expected):
    assert pieces(opened(tmp_path, pre=name), "It's 1234   x+=\n") == expected


def test_marks_are_letters_for_qwen35_alone(tmp_path):
    text = "e\u0301a"
    assert pieces(opened(tmp_path, pre="qwen35"), text) == [text]
    assert len(pieces(opened(tmp_path, pre="qwen2"), text)) == 2


def test_a_file_that_names_no_split_is_read_as_llama_cpp_does_and_that_is_told(tmp_path):
    for pre in (None, "default"):
        source = opened(tmp_path, pre=pre)
        assert pieces(source, "it's") == ["it", "'", "s"]
        assert len(source.notes) == 1
        assert "tokenizer.ggml.pre" in source.notes[0]


def test_only_llama_3_takes_a_piece_that_is_a_token_whole(tmp_path):
    tokens = [*byte_tokens(), "abc"]
    for name, expected in (("llama-bpe", 1), ("qwen2", 3)):
        source = opened(tmp_path, tokens, pre=name, add_bos_token=False)
        assert len(tokenizer_of(source).encode("abc").ids) == expected


def test_merges_join_the_best_pair_first_and_the_first_of_two_equal_ones_counts(tmp_path):
    tokens = [*byte_tokens(), "ab", "bc", "abc"]
    for merges, expected in (
        (["a b", "b c", "ab c"], ["abc"]),
        (["b c", "a b", "ab c"], ["a", "bc"]),
        (["b c", "a b", "b c"], ["a", "bc"]),
    ):
        source = opened(tmp_path, tokens, merges=merges)
        assert tokenizer_of(source).encode("abc").tokens == expected


@pytest.mark.parametrize("merge", ["a", "a  b", "a b c", "a x\u00a0", "", " ", "a ", "zz a", "b a"])
def test_a_merge_of_or_to_no_token_is_refused(tmp_path, merge):
    tokens = [*byte_tokens(), "ab"]
    line = refusal(tmp_path, tokens, merges=["a b", merge])
    assert line.startswith("tokenizer.ggml.merges must be two tokens whose join is a token")


@pytest.mark.parametrize(
    ("pre", "stated", "expected"),
    [
        ("smollm", None, False),
        ("llama-bpe", None, True),
        ("llama-bpe", False, False),
        ("smollm", True, True),
    ],
)
def test_the_first_token_is_added_as_the_file_says(tmp_path, pre, stated, expected):
    source = opened(tmp_path, pre=pre, add_bos_token=stated)
    assert tokenizer_of(source).encode("a").ids[0] == (256 if expected else ord("a") - 33)
    assert settings_of(source, "tokenizer_config")["add_bos_token"] is expected


def test_the_end_of_a_text_is_added_where_the_file_says(tmp_path):
    ids = tokenizer_of(opened(tmp_path, add_eos_token=True)).encode("a", "b").ids
    assert ids == [ord("a") - 33, 257, ord("b") - 33, 257]


def test_a_first_token_that_nobody_named_cannot_be_added(tmp_path):
    line = refusal(tmp_path, bos_token_id=None, add_bos_token=True)
    assert line.startswith("tokenizer.ggml.add_bos_token must be false without")


def test_a_text_ends_with_each_token_that_the_file_or_its_text_names(tmp_path):
    tokens = [*byte_tokens(), "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<eot>", "<eom>"]
    source = opened(tmp_path, tokens, eot_token_id=261, eom_token_id=262, padding_token_id=0)
    assert settings_of(source, "generation_config") == {
        "bos_token_id": 256,
        "pad_token_id": 0,
        "eos_token_id": [257, 261, 262, 258, 259, 260],
    }


def test_an_end_by_its_text_is_special_whatever_its_type(tmp_path):
    tokens = [*byte_tokens(), "<|im_end|>"]
    source = opened(tmp_path, tokens, token_type=Typed(5, [1] * len(tokens)))
    assert tokenizer_of(source).encode("a<|im_end|>").ids == [ord("a") - 33, 258]


def test_a_token_of_the_user_is_matched_whole_and_stays_text(tmp_path):
    tokens = [*byte_tokens(), "<think>"]
    source = opened(tmp_path, tokens, token_type=Typed(5, [1] * 256 + [3, 3, 4]))
    tokenizer = tokenizer_of(source)
    assert tokenizer.encode("a<think>").ids == [ord("a") - 33, 258]
    assert tokenizer.decode([258, 257]) == "<think>"


def test_unused_and_empty_tokens_keep_the_ids_of_the_others(tmp_path):
    tokens = [*byte_tokens(), "", "[PAD259]", "<last>"]
    source = opened(tmp_path, tokens, token_type=Typed(5, [1] * 256 + [3, 3, 1, 5, 3]))
    tokenizer = tokenizer_of(source)
    assert tokenizer.encode("<last>").ids == [260]
    assert tokenizer.get_vocab_size() == 261
    assert 259 not in tokenizer.encode("[PAD259]").ids


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"model": "bert"}, "tokenizer.ggml.model must be gpt2 or llama, got 'bert'"),
        ({"model": None}, "tokenizer.ggml.model must be in the file"),
        ({"pre": "tekken"}, "tokenizer.ggml.pre must be one of gpt-2"),
        ({"tokens": None}, "tokenizer.ggml.tokens must be in the file"),
        ({"tokens": [1, 2]}, "tokenizer.ggml.tokens must be an array of texts"),
        ({"tokens": Typed(8, [b"\xff"] * 258)}, "tokenizer.ggml.tokens must hold texts in UTF-8"),
        ({"merges": None}, "tokenizer.ggml.merges must be in the file"),
        ({"token_type": Typed(5, [1] * 257)}, "tokenizer.ggml.token_type must have 258 elements"),
        ({"token_type": Typed(5, [7] * 258)}, "tokenizer.ggml.token_type must hold types 1 to 6"),
        ({"token_type": [1.0] * 258}, "tokenizer.ggml.token_type must be an array of whole"),
        ({"bos_token_id": 258}, "tokenizer.ggml.bos_token_id must be a whole number from 0 to 257"),
        ({"eot_token_id": 2**32 - 1}, "tokenizer.ggml.eot_token_id must be a whole number"),
        ({"padding_token_id": Typed(5, -1)}, "tokenizer.ggml.padding_token_id must be a whole"),
        ({"add_bos_token": 1}, "tokenizer.ggml.add_bos_token must be true or false, got 1"),
    ],
)
def test_a_tokenizer_that_cannot_be_is_refused_by_its_key(tmp_path, keys, line):
    assert line in refusal(tmp_path, **keys)


def test_a_token_of_too_many_characters_is_refused(tmp_path):
    line = refusal(tmp_path, [*byte_tokens(), "x" * 5000])
    assert line.startswith("tokenizer.ggml.tokens must hold texts of at most 4096 characters")


def test_sentencepiece_joins_the_pair_with_the_highest_score(tmp_path):
    more = {BLANK: -9.0, "a": -9.0, "b": -9.0, "c": -9.0, "ab": -2.0, "bc": -1.0}
    source = sentencepiece(tmp_path, more)
    assert tokenizer_of(source).encode("abc").tokens == ["<s>", BLANK, "a", "bc"]
    more["bc"] = -4.0
    assert tokenizer_of(sentencepiece(tmp_path, more)).encode("abc").tokens[2:] == ["ab", "c"]


def test_sentencepiece_writes_bytes_for_what_is_no_token(tmp_path):
    tokenizer = tokenizer_of(sentencepiece(tmp_path, {BLANK: -1.0, "a": -2.0}))
    encoded = tokenizer.encode("aé")
    assert encoded.tokens == ["<s>", BLANK, "a", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(encoded.ids) == "aé"


def test_the_space_before_a_text_is_left_out_where_the_file_says(tmp_path):
    more = {BLANK: -1.0, "a": -2.0}
    tokenizer = tokenizer_of(sentencepiece(tmp_path, more, add_space_prefix=False))
    assert tokenizer.encode("a a").tokens == ["<s>", "a", BLANK, "a"]
    assert tokenizer.decode(tokenizer.encode(" a").ids) == " a"


def test_sentencepiece_has_its_own_special_tokens_unless_told(tmp_path):
    source = sentencepiece(tmp_path, {"a": -1.0})
    config = settings_of(source, "tokenizer_config")
    assert (config["bos_token"], config["eos_token"], config["unk_token"]) == (
        "<s>",
        "</s>",
        "<unk>",
    )
    assert settings_of(source, "generation_config") == {"bos_token_id": 1, "eos_token_id": [2]}


@pytest.mark.parametrize("scores", [None, [0.0], [float("nan")] * 260, Typed(5, [1] * 260)])
def test_scores_that_cannot_be_are_refused(tmp_path, scores):
    with pytest.raises(GgufError, match=r"tokenizer\.ggml\.scores must"):
        sentencepiece(tmp_path, {"a": -1.0}, scores=scores)


def test_the_chat_template_is_handed_on_unrendered(tmp_path):
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}{{ 1 / 0 }}"
    file = tiny_gguf(**{"tokenizer.chat_template": template})
    source = open_gguf(file.write(tmp_path / "a.gguf"))
    package = tmp_path / "package"
    package.mkdir()
    for name, text in source.tokenizer_files().items():
        (package / name).write_text(text, "utf-8")
    read = read_chat_template(package)
    assert read.source == template
    assert read.special_tokens == {"bos_token": "<s>", "eos_token": "</s>"}


def test_named_chat_templates_stand_beside_the_default(tmp_path):
    file = tiny_gguf(
        **{
            "tokenizer.chat_template": "plain",
            "tokenizer.chat_template.tool_use": "tools",
            "tokenizer.chat_templates": ["tool_use"],
        }
    )
    source = open_gguf(file.write(tmp_path / "a.gguf"))
    assert settings_of(source, "tokenizer_config")["chat_template"] == [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "tools"},
    ]


def test_a_chat_template_without_bound_is_refused(tmp_path):
    file = tiny_gguf(**{"tokenizer.chat_template": "x" * (1 << 20)})
    with pytest.raises(GgufError, match=r"tokenizer\.chat_template must have at most 524288"):
        open_gguf(file.write(tmp_path / "a.gguf"))


def test_the_embedding_has_as_many_rows_as_there_are_tokens(tmp_path):
    source = opened(tmp_path)
    assert source.shapes["model.embed_tokens.weight"] == (258, HIDDEN)
    assert source.config["vocab_size"] == len(byte_tokens())
