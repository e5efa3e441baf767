"""Word-level text: every word and the end of every line is a token, as in papers on WikiText-2."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from spiketrain.evaluation.corpus import SEPARATOR, Corpus
from spiketrain.evaluation.sources import wikitext2_file
from spiketrain.runtime.errors import DataError, TokenizerError

EOS = "<eos>"
UNKNOWN = "<unk>"


class WordTokenizer:
    """Words and line ends to ids. An unlisted word is `<unk>` if that is listed, else refused."""

    kind = "words"

    def __init__(self, words: Iterable[str]) -> None:
        self._words = list(dict.fromkeys(words))
        self._ids = {word: place for place, word in enumerate(self._words)}
        if EOS not in self._ids:
            raise TokenizerError(f"word list must have {EOS}, has {len(self._words)} others")
        self.vocab_size = len(self._words)
        self.hash = f"sha256:{hashlib.sha256(chr(10).join(self._words).encode()).hexdigest()}"
        self.end_of_line = self._ids[EOS]

    def encode(self, text: str) -> list[int]:
        """Ids of the words, and of <eos> at the end of each line."""
        ids: list[int] = []
        *lines, rest = text.split("\n")
        for line in lines:
            ids += [self._id(word) for word in line.split()]
            ids.append(self.end_of_line)
        return ids + [self._id(word) for word in rest.split()]

    def decode(self, ids: Iterable[int], continues: bool = False) -> str:
        """Words with blanks between them, lines ended; the same whether it `continues` or not."""
        words = ("\n" if token == self.end_of_line else f"{self._words[token]} " for token in ids)
        return "".join(words)

    def _id(self, word: str) -> int:
        token_id = self._ids.get(word, self._ids.get(UNKNOWN))
        if token_id is None:
            raise TokenizerError(f"word must be one of {self.vocab_size} listed, got {word!r:.80}")
        return token_id


def load_words(path: Path) -> WordTokenizer:
    """The vocabulary in a UTF-8 file with one word a line, the first of which has id 0.

    DataError unless each line is a word, and each word is there once: ids are numbers of lines.
    """
    lines: list[str] = []
    for document in Corpus(path):
        text = document.text if document.ended else document.text.removesuffix("\n")
        lines += [*(text.split("\n") if text else []), *[SEPARATOR] * document.ended]
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if len(line.split()) != 1:
            raise DataError(f"{path}: line {number} must be one word, got {line:.80}")
        word = line.strip()
        if first.setdefault(word, number) != number:
            raise DataError(
                f"{path}: line {number} must be a further word, got {word!r:.80} of line "
                f"{first[word]}"
            )
    return WordTokenizer(first)


def words_by_appearance(files: Iterable[Path]) -> WordTokenizer:
    """The vocabulary of the files' words in order of first appearance, as EvNN numbers them."""
    seen: dict[str, None] = {}
    for file in files:
        for document in Corpus(file, form="articles"):
            for line in document.text.removesuffix("\n").split("\n"):
                seen.update(dict.fromkeys([*line.split(), EOS]))
    return WordTokenizer(seen)


def wikitext2_words(vocab_size: int) -> WordTokenizer:
    """The words of train, valid and test; DataError unless there are `vocab_size` of them."""
    words = words_by_appearance(wikitext2_file(split) for split in ("train", "valid", "test"))
    if words.vocab_size != vocab_size:
        raise DataError(
            f"wikitext2 has {words.vocab_size} words, the model has {vocab_size} tokens and no "
            "tokenizer of its own: name one with --tokenizer"
        )
    return words
