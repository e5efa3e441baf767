"""Text to token ids and back, one interface over SentencePiece and Hugging Face tokenizers.

Decoding is ours for both: a token is a run of bytes, a text is the joined bytes read as UTF-8
(damaged parts become U+FFFD), so that a stream of tokens gives exactly the text that decoding them
at once gives. Special tokens have no bytes. Where the encoder puts a blank before a text, decoding
takes it away again, unless the tokens continue an earlier text.
"""

from __future__ import annotations

import codecs
import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from spiketrain.runtime.errors import SpiketrainError, TokenizerError
from spiketrain.runtime.package import find_tokenizer
from spiketrain.runtime.package_files import package_root, read_limited
from spiketrain.runtime.tokenizer_work import unbounded_part, unbounded_sentencepiece

MAX_TOKENIZER_BYTES = 64 << 20
_SPACE = "\u2581"  # stands for a blank in SentencePiece vocabularies


class Tokenizer:
    """A vocabulary as bytes per token, and the library's encoder."""

    def __init__(
        self,
        kind: str,
        source: bytes,
        encode: Callable[[str], list[int]],
        pieces: list[bytes],
        strips_blank: bool,
        unbounded: str | None = None,
    ) -> None:
        """unbounded: the part, if any, whose work a text may drive up (`tokenizer_work.py`)."""
        self.kind = kind
        self.unbounded = unbounded
        self.source = source if unbounded is not None else b""  # to load it elsewhere
        self.hash = f"sha256:{hashlib.sha256(source).hexdigest()}"
        self.vocab_size = len(pieces)
        self.strips_blank = strips_blank
        self._encode = encode
        self._pieces = pieces

    def encode(self, text: str) -> list[int]:
        """Token ids of the text, without special tokens around them. Raises TokenizerError."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"text must be valid Unicode, got a lone surrogate at character {error.start}"
            ) from None
        try:
            return self._encode(text)
        except (SpiketrainError, KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # a panic of the library is no Exception
            raise TokenizerError(
                f"text must be one that the tokenizer encodes, it fails ({error!s:.200})"
            ) from None

    def encoding_with(self, encode: Callable[[str], list[int]]) -> Tokenizer:
        """The same vocabulary with another encoder, which has to give the same tokens."""
        other = copy.copy(self)
        other._encode = encode
        return other

    def decode(self, ids: Iterable[int], continues: bool = False) -> str:
        """The text of the tokens. With `continues`, a leading blank belongs to the text."""
        detokenizer = Detokenizer(self, continues)
        return "".join([detokenizer.push(token) for token in ids]) + detokenizer.flush()

    def piece_bytes(self, token: int) -> bytes:
        """The bytes that one token adds to a text; b"" for special tokens."""
        if not 0 <= token < self.vocab_size:
            raise TokenizerError(f"token id must be in [0, {self.vocab_size}), got {token}")
        return self._pieces[token]


class Pieces(Protocol):
    """The part of a tokenizer that turns tokens into text."""

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary."""

    @property
    def strips_blank(self) -> bool:
        """Whether a text loses the blank that its first token begins with."""

    def piece_bytes(self, token: int, /) -> bytes:
        """The bytes that one token adds to a text; b"" for special tokens."""


class Detokenizer:
    """Tokens to text, one at a time; a character comes out when its last byte is there."""

    def __init__(self, tokenizer: Pieces, continues: bool = False) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._strip = tokenizer.strips_blank and not continues

    def push(self, token: int) -> str:
        """The text that this token completes, often "" inside a character.

        A model's vocabulary may be padded beyond its tokenizer's: such ids add no text.
        """
        if token >= self._tokenizer.vocab_size:
            return ""
        data = self._tokenizer.piece_bytes(token)
        if self._strip and data:
            data = data.removeprefix(b" ")
            self._strip = False
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What an unfinished character leaves behind: "" or U+FFFD."""
        return self._decoder.decode(b"", final=True)


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a package directory, or of a tokenizer.json or tokenizer.model file."""
    file: Path | None = Path(path)
    if Path(path).is_dir():
        file = find_tokenizer(package_root(path))
    if file is None:
        raise TokenizerError(f"{path}: has no tokenizer.json or tokenizer.model (see --tokenizer)")
    return parse_tokenizer(
        file, read_limited(package_root(file.parent), file.name, MAX_TOKENIZER_BYTES)
    )


def parse_tokenizer(file: Path, source: bytes) -> Tokenizer:
    """The tokenizer in `source`; its kind, and the name in errors, are those of `file`."""
    build, what = (_from_sentencepiece, "SentencePiece model")
    if file.suffix == ".json":
        build, what = (_from_hugging_face, "Hugging Face tokenizer")
    try:
        return build(source)
    except TokenizerError as error:
        raise TokenizerError(f"{file}: {error}") from None
    except MemoryError:
        raise
    except BaseException as error:  # the libraries panic outside the Exception hierarchy
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise TokenizerError(f"{file}: must be a {what}, got {error!s:.200}") from None


def _from_sentencepiece(source: bytes) -> Tokenizer:
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_proto=source)
    pieces = [_sentencepiece_bytes(model, token) for token in range(model.get_piece_size())]
    first = model.encode("a", out_type=str)[:1]
    prefixed = bool(first) and first[0].startswith(_SPACE)
    unbounded = unbounded_sentencepiece(source, pieces)
    return Tokenizer("sentencepiece", source, model.encode, pieces, prefixed, unbounded)


def _sentencepiece_bytes(model: Any, token: int) -> bytes:
    if model.is_control(token):
        return b""
    if model.is_unknown(token):
        return " \u2047 ".encode()
    piece = model.id_to_piece(token)
    if model.is_byte(token):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(_SPACE, " ").encode()


def _from_hugging_face(source: bytes) -> Tokenizer:
    from tokenizers import Tokenizer as Library

    text = source.decode("utf-8")
    library = Library.from_str(text)
    library.no_truncation()
    library.no_padding()
    described = json.loads(text)
    special = {t["id"] for t in described.get("added_tokens", []) if t.get("special")}
    to_bytes, strips_blank = _token_reader(described.get("decoder"))
    pieces = []
    for token in range(library.get_vocab_size(with_added_tokens=True)):
        piece = library.id_to_token(token)
        pieces.append(b"" if piece is None or token in special else to_bytes(piece))

    def encode(text: str) -> list[int]:
        return library.encode(text, add_special_tokens=False).ids

    return Tokenizer("huggingface", source, encode, pieces, strips_blank, unbounded_part(described))


def _token_reader(decoder: Any) -> tuple[Callable[[str], bytes], bool]:
    """How a token becomes bytes, and whether a text starts with a blank to take away."""
    if decoder is None:
        return (lambda piece: f" {piece}".encode()), True
    parts = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = {part["type"]: part for part in parts}
    if "ByteLevel" in kinds:
        return _byte_level_reader(), False
    if "Metaspace" in kinds:
        part = kinds["Metaspace"]
        never = part.get("prepend_scheme") == "never" or part.get("add_prefix_space") is False
        return _blank_reader(part.get("replacement", _SPACE)), not never
    if "Replace" in kinds and kinds["Replace"].get("content") == " ":
        blank = kinds["Replace"]["pattern"]["String"]
        return _blank_reader(blank), bool(kinds.get("Strip", {}).get("start"))
    raise TokenizerError(f"decoder must be ByteLevel, Metaspace or Replace, got {sorted(kinds)}")


def _blank_reader(blank: str) -> Callable[[str], bytes]:
    """Tokens in which `blank` stands for a blank and <0xNN> for a byte."""

    def to_bytes(piece: str) -> bytes:
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes.fromhex(piece[3:5])
        return piece.replace(blank, " ").encode()

    return to_bytes


def _byte_level_reader() -> Callable[[str], bytes]:
    """Tokens that write each byte as one visible character, as GPT-2's do."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    table = {chr(byte): byte for byte in visible}
    table.update({chr(256 + place): byte for place, byte in enumerate(hidden)})

    def to_bytes(piece: str) -> bytes:
        if all(c in table for c in piece):
            return bytes(table[c] for c in piece)
        return piece.encode()

    return to_bytes
