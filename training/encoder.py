"""Text becomes tokens: by a SentencePiece model (*.model) or a Hugging Face tokenizer.json."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
from tokenizers import Tokenizer

from spiketrain.lm.end_of_text import stated_ends
from spiketrain.training.config import ConfigError
from spiketrain.training.data import encode_corpus

SUFFIXES = (".json", ".model")
Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Encoder:
    """A tokenizer file; eos_id ends a text, to which encode adds nothing; ids < vocab_size."""

    file: Path
    encode: Encode
    eos_id: int
    vocab_size: int

    def stream(self, text: Path, cache: Path | None = None) -> np.ndarray:
        """The documents of a text as one int32 stream, see `encode_corpus`."""
        key = hashlib.sha256(self.file.read_bytes()).hexdigest()
        return encode_corpus(text, self.encode, self.eos_id, cache, key)


def load_encoder(file: Path, end_of_text: int | None = None) -> Encoder:
    """The tokenizer in `file`; end_of_text: the id that ends a text, if the file does not say it.

    Raises ConfigError on a file that is no tokenizer, or where no token ends a text.
    """
    if file.suffix not in SUFFIXES or not file.is_file():
        raise ConfigError(f"tokenizer must be a file *.json or *.model, got {file}")
    try:
        encode, size, end = _sentencepiece(file) if file.suffix == ".model" else _hugging_face(file)
    except Exception as error:  # tokenizers has no kinds of its own
        raise ConfigError(f"{file}: must be a readable tokenizer, {error}") from error
    end = end if end_of_text is None else end_of_text
    if not 0 <= end < size:
        raise ConfigError(f"{file}: the end of a text must be a token below {size}, got {end}")
    return Encoder(file, encode, end, size)


def _sentencepiece(file: Path) -> tuple[Encode, int, int]:
    """What encodes, how many tokens there are, and the one that ends a text (-1: none)."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(file))
    return pieces.encode, pieces.get_piece_size(), pieces.eos_id()


def _hugging_face(file: Path) -> tuple[Encode, int, int]:
    tokenizer = Tokenizer.from_file(str(file))

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    return encode, tokenizer.get_vocab_size(), -1


def folder_encoder(folder: Path) -> Encoder:
    """The tokenizer of a run or of a Hugging Face directory, whose config.json says what ends it.

    Raises ConfigError where there is none, or nothing says which token ends a text.
    """
    candidates = [folder / f"tokenizer{suffix}" for suffix in SUFFIXES]
    file = next((one for one in candidates if one.is_file()), None)
    if file is None:
        raise ConfigError(f"{folder} must have a tokenizer.json or tokenizer.model")
    return file_encoder(file)


def file_encoder(file: Path) -> Encoder:
    """`load_encoder`; what ends the texts of a *.json is said by the config.json beside it."""
    if file.suffix == ".model":
        return load_encoder(file)
    ends = stated_ends(file.parent)
    if not ends:
        raise ConfigError(f"{file.with_name('config.json')}: eos_token_id must be a token")
    return load_encoder(file, ends[0])
