"""The documents of a source as token ids, noted in accounts as they are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from spiketrain.evaluation.accounts import Accounts
from spiketrain.evaluation.corpus import SEPARATOR, Document
from spiketrain.evaluation.protocols import Settings
from spiketrain.evaluation.sources import Source
from spiketrain.runtime.errors import DataError


class EncodedText:
    """Iterate once. `end` is the id that is scored after a document with an end, or None.

    sums: the names of the values that scored tokens have.
    """

    def __init__(
        self,
        tokenizer: Any,
        source: Source,
        settings: Settings,
        end: int | None,
        sums: Sequence[str],
    ) -> None:
        self.accounts = Accounts(tokenizer, settings.by_document, source.line_ends, sums)
        self.lossless = 0
        self._tokenizer = tokenizer
        self._end = end
        self._by_document = settings.by_document
        self.documents = iter(source)
        self._digest = hashlib.sha256()
        self._expected: tuple[int, str] | None = None
        self._name = source.name

    @property
    def digest(self) -> str:
        """Of the documents drawn so far, with what they take up in their files."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[list[int]]:
        for document in self.documents:
            self._digest.update(_identity(document))
            where = f"{self._name}: document {self.accounts.count}"
            ids = encode(self._tokenizer, document.text, where)
            self.lossless += self._tokenizer.decode(ids) == document.text
            if document.ended and ids and not self._by_document:
                if self._end is None:
                    raise DataError(
                        f"{where}: model must name an eos_token_id to score the end of a document "
                        f"(a {SEPARATOR} line, a line of .jsonl) but in protocol rolling, "
                        "names none"
                    )
                ids.append(self._end)
            self.accounts.add(document, ids)
            self._compare(self.accounts.count)
            yield ids
        self._compare(None)

    def expect(self, count: int, digest: str) -> None:
        """Raise DataError if the first `count` documents turn out not to have this digest."""
        self._expected = (count, digest)

    def _compare(self, count: int | None) -> None:
        """Hold the first `count` documents, or all that there are, against what is expected."""
        if self._expected is None or (count is not None and count != self._expected[0]):
            return
        if count is None and self.accounts.count >= self._expected[0]:
            return
        if count is None or self._expected[1] != self.digest:
            raise DataError(f"{self._name}: must be the text of the interrupted evaluation, is not")


def encode(tokenizer: Any, text: str, where: str) -> list[int]:
    """Ids of a document; DataError, which says `where` it is, if the tokenizer cannot."""
    try:
        ids: list[int] = tokenizer.encode(text)
    except Exception as error:  # the libraries raise many kinds
        raise DataError(f"{where}: tokenizer must encode it, got {error!s:.200}") from None
    if text.strip() and not ids:
        raise DataError(
            f"{where}: tokenizer must encode it, got no token for {text.strip()[:40]!r}"
        )
    return ids


def check_sizes(model: Any, tokenizer: Any) -> None:
    """DataError unless the model knows all tokens."""
    if tokenizer.vocab_size > model.vocab_size:
        raise DataError(
            f"tokenizer must have at most the model's {model.vocab_size} tokens, "
            f"has {tokenizer.vocab_size}"
        )


def _identity(document: Document) -> bytes:
    sizes = f"\0{document.ended} {document.num_bytes} {document.num_words}\0"
    return document.text.encode() + sizes.encode()
