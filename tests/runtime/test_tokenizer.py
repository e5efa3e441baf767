import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiketrain.runtime.errors import PackageError, TokenizerError
from spiketrain.runtime.tokenizer import Detokenizer, load_tokenizer

TEXT = """The fox and the crane sat by the river, and the fox said: "Look at my tail!"

"It is a fine tail," said the crane, "but can it fly?" The old owl laughed in the tree.
"""
SEPARATOR = "<|endoftext|>"


def sentencepiece_model(**options):
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=model,
        vocab_size=330,
        hard_vocab_limit=False,
        byte_fallback=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        eos_piece=SEPARATOR,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def hugging_face_json(blank_style):
    library = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, pre_tokenizers, trainers

    if blank_style == "words":
        tokenizer = library.Tokenizer(models.WordLevel(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", SEPARATOR])
    elif blank_style == "bytes":
        tokenizer = library.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=[SEPARATOR],
            initial_alphabet=alphabet,
            show_progress=False,
        )
    else:
        tokenizer = library.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Sequence(
            [
                decoders.Replace("\u2581", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=340, special_tokens=["<unk>", SEPARATOR, *bytes_], show_progress=False
        )
    tokenizer.train_from_iterator([TEXT], trainer)
    described = json.loads(tokenizer.to_str())
    for added in described["added_tokens"]:
        added["special"] = not added["content"].startswith("<0x")
    return json.dumps(described).encode()


MAKERS = {
    "prefixed": lambda: ("tokenizer.model", sentencepiece_model()),
    "plain": lambda: (
        "tokenizer.model",
        sentencepiece_model(add_dummy_prefix=False, user_defined_symbols=["\n"]),
    ),
    "byte-level": lambda: ("tokenizer.json", hugging_face_json("bytes")),
    "metaspace": lambda: ("tokenizer.json", hugging_face_json("fallback")),
    "words": lambda: ("tokenizer.json", hugging_face_json("words")),
}


@pytest.fixture(scope="module", params=sorted(MAKERS))
def tokenizer(request, tmp_path_factory):
    name, content = MAKERS[request.param]()
    directory = tmp_path_factory.mktemp(request.param)
    (directory / name).write_bytes(content)
    return load_tokenizer(directory)


@pytest.fixture(scope="module", params=["prefixed", "plain", "byte-level"])
def lossless(request, tmp_path_factory):
    name, content = MAKERS[request.param]()
    directory = tmp_path_factory.mktemp(request.param)
    (directory / name).write_bytes(content)
    return load_tokenizer(directory)


def streamed(tokenizer, ids, **options):
    detokenizer = Detokenizer(tokenizer, **options)
    return [*(detokenizer.push(token) for token in ids), detokenizer.flush()]


@given(data=st.data())
def test_streamed_text_is_the_decoded_text(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=20))
    continues = data.draw(st.booleans())
    assert "".join(streamed(tokenizer, ids, continues=continues)) == tokenizer.decode(
        ids, continues
    )


@given(text=st.text())
def test_text_survives_a_round_trip(lossless, text):
    assert lossless.decode(lossless.encode(text)) == text


@given(text=st.text(min_size=1, max_size=8))
def test_no_piece_of_a_stream_holds_half_a_character(lossless, text):
    parts = streamed(lossless, lossless.encode(text))
    assert parts[-1] == ""
    assert all("\ufffd" not in part for part in parts) or "\ufffd" in text


def test_decoding_agrees_with_the_library(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model())
    library = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    ours = load_tokenizer(tmp_path)
    for text in (TEXT, "  blanks", "déjà \u4e16\u754c", ""):
        ids = library.encode(text)
        assert ours.encode(text) == ids
        assert ours.decode(ids) == library.decode(ids) == text
    assert ours.decode([library.eos_id(), *ids]) == library.decode([library.eos_id(), *ids])


@pytest.mark.parametrize("style", ["bytes", "fallback", "words"])
def test_decoding_agrees_with_hugging_face(tmp_path, style):
    library = pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_bytes(hugging_face_json(style))
    theirs = library.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    for text in ("the old fox sat", 'said the crane, "but', "fox"):
        ids = theirs.encode(text).ids
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids)


def test_a_continuation_keeps_its_leading_blank(tokenizer):
    prompt, more = "the fox", " said the"
    whole = tokenizer.encode(prompt + more)
    count = len(tokenizer.encode(prompt))
    start, rest = whole[:count], whole[count:]
    assert tokenizer.decode(start) + tokenizer.decode(rest, continues=True) == prompt + more


def test_special_tokens_have_no_bytes(tokenizer):
    special = [t for t in range(tokenizer.vocab_size) if tokenizer.piece_bytes(t) == b""]
    assert special
    ids = tokenizer.encode("the fox")
    assert tokenizer.decode([special[0], *ids, special[-1]]) == tokenizer.decode(ids)


def test_a_character_of_several_tokens_comes_out_once_complete(lossless):
    ids = lossless.encode("\U0001f98a")
    parts = [part for part in streamed(lossless, ids) if part]
    assert parts == ["\U0001f98a"]
    assert "".join(streamed(lossless, ids[:-1])) == "\ufffd"


def test_the_hash_names_the_file(tokenizer):
    assert tokenizer.hash.startswith("sha256:")
    assert len(tokenizer.hash) == 71


def test_a_lone_surrogate_is_refused(tokenizer):
    with pytest.raises(TokenizerError, match="lone surrogate at character 1"):
        tokenizer.encode("a\ud800")


@pytest.mark.parametrize("token", [-1, 10**6])
def test_an_id_out_of_range_is_refused(tokenizer, token):
    with pytest.raises(TokenizerError, match=f"token id must be in .*, got {token}"):
        tokenizer.piece_bytes(token)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x00garbage\xff" * 9, b"[[[[", b'{"model":1}'])
def test_a_damaged_tokenizer_is_an_error_that_names_it(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=name):
        load_tokenizer(tmp_path)


def test_every_truncation_is_refused_or_loads_whole(tmp_path):
    content = hugging_face_json("bytes")
    for size in range(0, len(content), 997):
        (tmp_path / "tokenizer.json").write_bytes(content[:size])
        with pytest.raises(TokenizerError):
            load_tokenizer(tmp_path)


def test_an_unsupported_decoder_is_named(tmp_path):
    described = json.loads(hugging_face_json("bytes"))
    described["decoder"] = {"type": "BPEDecoder", "suffix": "</w>"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(TokenizerError, match="BPEDecoder"):
        load_tokenizer(tmp_path)


def test_a_missing_tokenizer_names_the_flag(tmp_path):
    with pytest.raises(TokenizerError, match="--tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(PackageError, match="nowhere"):
        load_tokenizer(tmp_path / "nowhere" / "tokenizer.model")


def test_ids_beyond_the_vocabulary_add_no_text(tokenizer):
    ids = tokenizer.encode("The hen")
    padded = [ids[0], tokenizer.vocab_size, *ids[1:], 1 << 20]
    assert tokenizer.decode(padded) == tokenizer.decode(ids)
