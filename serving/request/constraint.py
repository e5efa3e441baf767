"""Constraints on a text: a JSON schema, a regular expression or a grammar, as masks over tokens.

llguidance does the parsing; it is imported when the first request asks for a constraint. Grammars
come from clients: its limits on work and size are kept, and nothing it names is ever fetched. Each
one is tried in a process with limits (`constraint_trial.py`) before this one compiles it.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.errors import RequestError, TokenizerError
from spiketrain.serving.errors import ConstraintFailed, Draining
from spiketrain.serving.isolation.confined_process import Limits, Refused
from spiketrain.serving.isolation.confinement import Confinement, Died
from spiketrain.serving.model import Tokenizer
from spiketrain.serving.request.confined_tokenizer import is_confined
from spiketrain.serving.request.constraint_numbers import check_numbers

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

P = ParamSpec("P")
T = TypeVar("T")

# Field of a request -> what llguidance calls it.
KINDS = {"json_schema": "json_schema", "regex": "regex", "grammar": "lark"}
TRIAL = Limits(cpu_s=2.0, wall_s=10.0, memory_bytes=256 << 20)
_MAX_TRIED = 1024  # constraints that need no further trial
_MESSAGE = 300  # characters of llguidance's explanation that a client gets to see


class Constraint:
    """Where one completion stands in its grammar."""

    def __init__(self, matcher: "LLMatcher", vocab_size: int, mask: bytes | None = None) -> None:
        """mask: of the next token where it is known, a bit for each."""
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._mask = mask

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens (V,) may come next. Raises ConstraintFailed beyond llguidance's limits."""
        if self._mask is None:
            self._mask = _called(self._matcher.compute_bitmask)
        bits = np.frombuffer(self._mask, np.uint8)
        self._check()
        return np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)

    def push(self, token: int) -> None:
        """Take the token that was chosen, one of those allowed. Raises as `allowed`."""
        self._mask = None
        _called(self._matcher.consume_token, token)
        self._check()

    @property
    def complete(self) -> bool:
        """Whether the text is finished: nothing may follow."""
        return self._matcher.is_stopped()

    def copy(self) -> "Constraint":
        """Another one at the same place."""
        return Constraint(self._matcher.deep_copy(), self._vocab_size, self._mask)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConstraintFailed(self._matcher.get_error()[:_MESSAGE])


def _called(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """What a method of a matcher gives. Raises ConstraintFailed for whatever else it does."""
    try:
        return function(*arguments, **options)
    except BaseException as error:  # a panic is no Exception
        raise ConstraintFailed(f"its library fails ({error!s:.{_MESSAGE}})") from None


class Grammars:
    """Compiles constraints for one vocabulary; any thread.

    A vocabulary of the model may be padded beyond its tokenizer's, and may lack an end of text.
    """

    def __init__(
        self, vocabulary: Tokenizer, vocab_size: int, eos_token_ids: tuple[int, ...]
    ) -> None:
        self._vocabulary = vocabulary
        self._vocab_size = vocab_size
        self._ends = eos_token_ids or (vocab_size,)  # one that no model writes
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._pieces: list[bytes] | None = None
        self._trial: Confinement | None = None
        self._closed = False
        self._tried: OrderedDict[bytes, None] = OrderedDict()  # digests of what has passed

    def compile(self, field: str, source: str) -> Constraint:
        """The constraint that `source` describes; `field` is one of KINDS.

        It is tried first where a crash or a hang harms nobody. Raises RequestError naming the field
        when `source` is no such thing or passes a limit; ConstraintFailed; TooManyQuestions;
        ConfinementFailed; Draining.
        """
        check_numbers(field, source)
        try:
            self._try(KINDS[field], source)
            matcher = self._matcher(KINDS[field], source)
        except (Died, Refused) as error:
            rule = f"compile ({error!s:.{_MESSAGE}})"
            raise RequestError(field, rule, source[:40]) from None
        constraint = Constraint(matcher, self._vocab_size)
        constraint.allowed()  # here, where no other completion waits for the first mask
        return constraint

    def warm(self) -> None:
        """Start the process that tries constraints, beside all else, so that no request waits."""
        self._confinement().warm_beside()

    def close(self) -> None:
        """End the process that tries constraints; later ones are refused."""
        with self._lock:
            self._closed = True
            trial = self._trial
        if trial is not None:
            trial.close()

    def _try(self, kind: str, source: str) -> None:
        """Have another process do it first, if it has not. Raises Refused, Died."""
        question = json.dumps((kind, source)).encode()
        digest = hashlib.sha256(question).digest()
        with self._lock:
            tried = digest in self._tried
        if not tried:
            self._confinement().ask(question)
        with self._lock:
            self._tried[digest] = None
            self._tried.move_to_end(digest)
            if len(self._tried) > _MAX_TRIED:
                self._tried.popitem(last=False)

    def _confinement(self) -> Confinement:
        with self._lock:
            if self._closed:
                raise Draining
            if self._trial is None:
                from spiketrain.serving.request import constraint_trial

                def setup() -> bytes:
                    return constraint_trial.setup_of(self._known(), self._ends)

                self._trial = Confinement(constraint_trial, setup, TRIAL)
            return self._trial

    def _matcher(self, kind: str, source: str) -> "LLMatcher":
        from spiketrain.serving.request.constraint_trial import matcher_of, tokenizer_of

        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = tokenizer_of(self._known(), self._ends, self._encoder())
        return matcher_of(self._tokenizer, kind, source)

    def _encoder(self) -> Callable[[str], list[int]]:
        """Encodes what a constraint leaves no choice about; called while others wait: never slow.

        An error must not reach llguidance either.
        """
        from spiketrain.serving.request.constraint_trial import longest_first

        by_length = longest_first(self._known())
        if is_confined(self._vocabulary):
            return by_length

        def encode(text: str) -> list[int]:
            try:
                return self._vocabulary.encode(text)
            except TokenizerError:
                return by_length(text)

        return encode

    def _known(self) -> list[bytes]:
        """The bytes of every token, and of an end of text that the model may lack."""
        if self._pieces is None:
            known = min(self._vocabulary.vocab_size, self._vocab_size)
            pieces = [self._vocabulary.piece_bytes(token) for token in range(known)]
            size = max(self._vocab_size, 1 + max(self._ends))
            self._pieces = pieces + [b""] * (size - known)
        return self._pieces
