"""Accounts of scored documents: sums, tokens, words and bytes, and blocks for the error.

A scored token has a value for each of the sums that the accounts are of, such as its nats.

A block is BLOCK_TOKENS consecutive scored tokens of one document, or what is left at its end. Sums
go token by token in the order of the text, so they do not depend on how it was cut into calls.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.evaluation.corpus import Document

BLOCK_TOKENS = 512


@dataclass(slots=True)
class Account:
    """One document: its tokens (N,) from `place` of the text on, and what was scored of them.

    scored: intervals [begin, end) within the document. pending: values of the tokens that are in
    no block yet, a list for each sum. blocks: the sums of each, and last its tokens.
    """

    index: int
    document: Document
    ids: list[int]
    place: int
    pending: list[list[float]]
    scored: list[list[int]] = field(default_factory=list)
    blocks: list[list[float]] = field(default_factory=list)

    def add(self, begin: int, values: list[list[float]]) -> None:
        """Tokens from `begin` of the document on were scored; a list for each sum."""
        count = len(values[0])
        if self.scored and self.scored[-1][1] == begin:
            self.scored[-1][1] += count
        else:
            self.scored.append([begin, begin + count])
        for held, new in zip(self.pending, values, strict=True):
            held += new
        while len(self.pending[0]) >= BLOCK_TOKENS:
            self._block(BLOCK_TOKENS)

    def close(self) -> None:
        """The document is over."""
        if self.pending[0]:
            self._block(len(self.pending[0]))

    @property
    def tokens(self) -> int:
        """Scored tokens."""
        return sum(end - begin for begin, end in self.scored)

    def _block(self, size: int) -> None:
        self.blocks.append([*(math.fsum(held[:size]) for held in self.pending), size])
        for held in self.pending:
            del held[:size]


class Accounts:
    """The documents under way, first to last; closed ones become records with `sums` by name."""

    def __init__(
        self,
        tokenizer: Any,
        by_document: bool,
        line_ends: bool,
        sums: Sequence[str] = ("nll_nats",),
    ) -> None:
        self._tokenizer = tokenizer
        self._by_document = by_document
        self._line_ends = line_ends
        self._sums = tuple(sums)
        self.open: deque[Account] = deque()
        self.place = 0  # after the last document added
        self.count = 0

    def add(self, document: Document, ids: list[int]) -> None:
        """A further document, encoded."""
        pending: list[list[float]] = [[] for _ in self._sums]
        self.open.append(Account(self.count, document, ids, self.place, pending))
        self.count += 1
        self.place += len(ids)

    def score(self, place: int, values: NDArray[np.float64]) -> None:
        """Tokens of the text from `place` on have these values (sums, T)."""
        for account in self.open:
            begin = max(place, account.place)
            end = min(place + values.shape[1], account.place + len(account.ids))
            if begin < end:
                part = values[:, begin - place : end - place]
                account.add(begin - account.place, part.tolist())

    def closed(self, place: int | None) -> Iterator[dict[str, Any]]:
        """Records of the documents that end at or before `place`, or of all."""
        while self.open:
            first = self.open[0]
            if place is not None and first.place + len(first.ids) > place:
                return
            self.open.popleft()
            first.close()
            if first.tokens or not first.ids:
                yield self._record(first)

    def under_way(self) -> list[list[Any]]:
        """What was scored of open documents, as JSON."""
        return [[one.index, one.scored, one.blocks, one.pending] for one in self.open]

    def restore(self, under_way: list[list[Any]], drawn: int) -> None:
        """Take up what `under_way` said when `drawn` documents were; others of them are closed."""
        records = {index: rest for index, *rest in under_way}
        self.open = deque(one for one in self.open if one.index >= drawn or one.index in records)
        for one in self.open:
            if one.index in records:
                one.scored, one.blocks, one.pending = records[one.index]

    def _record(self, account: Account) -> dict[str, Any]:
        words, num_bytes = self._sizes(account)
        return {
            "document": account.index,
            **{
                name: math.fsum(block[at] for block in account.blocks)
                for at, name in enumerate(self._sums)
            },
            "tokens": account.tokens,
            "words": words,
            "bytes": num_bytes,
            "place": account.place,
            "document_tokens": len(account.ids),
            "blocks": account.blocks,
        }

    def _sizes(self, account: Account) -> tuple[int, int]:
        """Words and bytes of what was scored; as in the file if that is the whole document."""
        document, ids = account.document, account.ids
        text = document.text
        if account.tokens == len(ids):
            if self._by_document:
                return self.count_words(text), len(text.encode())
            return document.num_words + self._num_line_ends(text), document.num_bytes
        parts = [
            self._tokenizer.decode(ids[begin:end], continues=begin > 0)
            for begin, end in account.scored
        ]
        words = sum(map(self.count_words, parts))
        num_bytes = sum(len(part.encode()) for part in parts)
        if account.scored[-1][1] == len(ids) and not self._by_document:  # with what ends it
            words += document.num_words - len(text.split())
            num_bytes += document.num_bytes - len(text.encode())
        return words, num_bytes

    def count_words(self, text: str) -> int:
        """Runs of characters that are not blank, and line ends where those are words."""
        return len(text.split()) + self._num_line_ends(text)

    def _num_line_ends(self, text: str) -> int:
        return text.count("\n") if self._line_ends else 0
