"""What was scored of which document: nats, tokens, words and bytes, and blocks for the error.

A block is BLOCK_TOKENS consecutive scored tokens of one document, or what is left at its end. Sums
go token by token in the order of the text, so they do not depend on how it was cut into calls.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.evaluation.corpus import Document

BLOCK_TOKENS = 512


@dataclass(slots=True)
class Account:
    """One document: its tokens (N,) from `place` of the text on, and what was scored of them.

    scored: intervals [begin, end) within the document. blocks: (nats, tokens) each.
    """

    index: int
    document: Document
    ids: list[int]
    place: int
    scored: list[list[int]] = field(default_factory=list)
    blocks: list[list[float]] = field(default_factory=list)
    pending: list[float] = field(default_factory=list)

    def add(self, begin: int, nats: list[float]) -> None:
        """Tokens from `begin` of the document on were scored."""
        if self.scored and self.scored[-1][1] == begin:
            self.scored[-1][1] += len(nats)
        else:
            self.scored.append([begin, begin + len(nats)])
        self.pending += nats
        while len(self.pending) >= BLOCK_TOKENS:
            self._block(BLOCK_TOKENS)

    def close(self) -> None:
        """The document is over."""
        if self.pending:
            self._block(len(self.pending))

    @property
    def tokens(self) -> int:
        """Scored tokens."""
        return sum(end - begin for begin, end in self.scored)

    def _block(self, size: int) -> None:
        self.blocks.append([math.fsum(self.pending[:size]), size])
        del self.pending[:size]


class Accounts:
    """The documents under way, first to last; closed ones become records."""

    def __init__(self, tokenizer: Any, by_document: bool, line_ends: bool) -> None:
        self._tokenizer = tokenizer
        self._by_document = by_document
        self._line_ends = line_ends
        self.open: deque[Account] = deque()
        self.place = 0  # after the last document added
        self.count = 0

    def add(self, document: Document, ids: list[int]) -> None:
        """A further document, encoded."""
        self.open.append(Account(self.count, document, ids, self.place))
        self.count += 1
        self.place += len(ids)

    def score(self, place: int, nats: NDArray[np.float64]) -> None:
        """Tokens of the text from `place` on have these nats (T,)."""
        values = nats.tolist()
        for account in self.open:
            begin = max(place, account.place)
            end = min(place + len(values), account.place + len(account.ids))
            if begin < end:
                account.add(begin - account.place, values[begin - place : end - place])

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
        found = {index: rest for index, *rest in under_way}
        self.open = deque(one for one in self.open if one.index >= drawn or one.index in found)
        for one in self.open:
            if one.index in found:
                one.scored, one.blocks, one.pending = found[one.index]

    def _record(self, account: Account) -> dict[str, Any]:
        words, num_bytes = self._sizes(account)
        return {
            "document": account.index,
            "nll_nats": math.fsum(nats for nats, _ in account.blocks),
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
