"""Constraints on a text: a JSON schema, a regular expression or a grammar, as masks over tokens.

llguidance does the parsing; it is imported when the first request asks for a constraint. Grammars
come from clients: its limits on work and size are kept, and nothing it names is ever fetched.
"""

import threading
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.errors import RequestError
from spiketrain.serving.errors import ConstraintFailed

# Field of a request -> what llguidance calls it.
KINDS = {"json_schema": "json_schema", "regex": "regex", "grammar": "lark"}
_MESSAGE = 300  # characters of llguidance's explanation that a client gets to see


class Vocabulary(Protocol):
    """The part of a tokenizer that a constraint needs."""

    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...

    def piece_bytes(self, token: int) -> bytes:
        """Bytes that a token adds to a text."""
        ...


class Constraint:
    """Where one completion stands in its grammar."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens (V,) may come next. Raises ConstraintFailed beyond llguidance's limits."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        return np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)

    def push(self, token: int) -> None:
        """Take the token that was chosen, one of those allowed. Raises as `allowed`."""
        self._matcher.consume_token(token)
        self._check()

    @property
    def complete(self) -> bool:
        """Whether the text is finished: nothing may follow."""
        return bool(self._matcher.is_stopped())

    def copy(self) -> "Constraint":
        """Another one at the same place."""
        return Constraint(self._matcher.deep_copy(), self._vocab_size)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConstraintFailed(self._matcher.get_error()[:_MESSAGE])


class Grammars:
    """Compiles constraints for one vocabulary; any thread.

    A vocabulary of the model may be padded beyond its tokenizer's, and may lack an end of text.
    """

    def __init__(
        self, vocabulary: Vocabulary, vocab_size: int, eos_token_ids: tuple[int, ...]
    ) -> None:
        self._vocabulary = vocabulary
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._lock = threading.Lock()
        self._tokenizer: Any = None

    def compile(self, field: str, source: str) -> Constraint:
        """The constraint that `source` describes; `field` is one of KINDS.

        Raises RequestError naming the field when `source` is no such thing.
        """
        import llguidance

        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = self._for_llguidance()
        try:
            grammar = llguidance.grammar_from(KINDS[field], source)  # type: ignore[arg-type]
        except ValueError as error:
            raise RequestError(field, f"compile ({error!s:.{_MESSAGE}})", source[:40]) from None
        limits = llguidance.LLParserLimits(verbose_errors=False)
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            reason = matcher.get_error()[:_MESSAGE]
            raise RequestError(field, f"compile ({reason})", source[:40])
        return Constraint(matcher, self._vocab_size)

    def _for_llguidance(self) -> Any:
        """The vocabulary in llguidance's terms, with an end of text even if the model has none."""
        import llguidance

        known = min(self._vocabulary.vocab_size, self._vocab_size)
        pieces = [self._vocabulary.piece_bytes(token) for token in range(known)]
        pieces += [b""] * (self._vocab_size - known)
        if not self._eos_token_ids:
            pieces.append(b"")
        ends = list(self._eos_token_ids) or [self._vocab_size]
        wrapped = llguidance.TokenizerWrapper(_Pieces(self._vocabulary, pieces, ends[0]))
        return llguidance.LLTokenizer(wrapped, n_vocab=len(pieces), eos_token=ends)


class _Pieces:
    """What llguidance's TokenizerWrapper wants to find; special tokens get names of their own."""

    def __init__(self, vocabulary: Vocabulary, pieces: list[bytes], eos_token_id: int) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = eos_token_id
        self.bos_token_id = None
        self.special_token_ids = [token for token, piece in enumerate(pieces) if not piece]
        self.tokens = [piece or b"<|%d|>" % token for token, piece in enumerate(pieces)]

    def __call__(self, text: str) -> list[int]:
        return self._vocabulary.encode(text)
