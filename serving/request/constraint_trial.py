"""A program for `confinement.py`: tries a constraint in a process that may crash or hang.

Compiles it, then follows it for some tokens. Nothing comes back but that all went well, or why not.
"""

import json
import time
from collections.abc import Callable, Sequence

import llguidance

from spiketrain.serving.isolation.confined_process import Refused

WARM = b'["regex", "[a-z]+"]'
MAX_TOKENS = 64  # of a trial
MIN_TOKENS = 4
MAX_FORCED = 16384  # bytes that all have to follow: llguidance works them out for one token
SOON_S = 0.001  # after which a trial that has the least ends
_STRIDE = 7919  # bytes of a mask between choices: a prime, so that they go everywhere


class Pieces:
    """A vocabulary as llguidance's TokenizerWrapper wants it; special tokens get names.

    pieces: bytes of each token. encode: text -> token ids.
    """

    def __init__(
        self, pieces: Sequence[bytes], eos_token_id: int, encode: Callable[[str], list[int]]
    ) -> None:
        self.eos_token_id = eos_token_id
        self.bos_token_id = None
        self.special_token_ids = [token for token, piece in enumerate(pieces) if not piece]
        self.tokens = [piece or b"<|%d|>" % token for token, piece in enumerate(pieces)]
        self._encode = encode

    def __call__(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self._encode(text)


def tokenizer_of(
    pieces: Sequence[bytes], end_token_ids: Sequence[int], encode: Callable[[str], list[int]]
) -> llguidance.LLTokenizer:
    """The vocabulary in llguidance's terms."""
    wrapped = llguidance.TokenizerWrapper(Pieces(pieces, end_token_ids[0], encode))
    return llguidance.LLTokenizer(wrapped, n_vocab=len(pieces), eos_token=list(end_token_ids))


def matcher_of(tokenizer: llguidance.LLTokenizer, kind: str, source: str) -> llguidance.LLMatcher:
    """A matcher at the beginning of what `source` describes. Raises Refused with the reason."""
    try:
        grammar = llguidance.grammar_from(kind, source)  # type: ignore[arg-type]
    except ValueError as error:
        raise Refused(str(error)) from None
    limits = llguidance.LLParserLimits(verbose_errors=False)
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    if matcher.is_error():
        raise Refused(matcher.get_error())
    return matcher


def setup_of(pieces: Sequence[bytes], end_token_ids: Sequence[int]) -> bytes:
    """What `load` takes."""
    texts = [piece.decode("latin-1") for piece in pieces]
    return json.dumps({"pieces": texts, "end_token_ids": list(end_token_ids)}).encode()


def load(setup: bytes) -> Callable[[bytes], bytes]:
    """A trial of constraints: a JSON list of kind and source in, nothing out."""
    given = json.loads(setup)
    pieces = [text.encode("latin-1") for text in given["pieces"]]
    tokenizer = tokenizer_of(pieces, given["end_token_ids"], longest_first(pieces))

    def trial(question: bytes) -> bytes:
        kind, source = json.loads(question)
        _follow(matcher_of(tokenizer, kind, source), frozenset(given["end_token_ids"]))
        return b""

    return trial


def _follow(matcher: llguidance.LLMatcher, ends: frozenset[int]) -> None:
    """Take allowed tokens from all over the vocabulary. What the matcher refuses is no crash.

    Raises Refused where one token is too much work for a thread that others share.
    """
    begun_s = time.perf_counter()
    for step in range(MAX_TOKENS):
        if step >= MIN_TOKENS and time.perf_counter() - begun_s > SOON_S:
            return
        if len(matcher.compute_ff_bytes()) > MAX_FORCED:
            raise Refused(f"leaves no choice for more than {MAX_FORCED} bytes at once")
        token = _allowed(matcher.compute_bitmask(), _STRIDE * step)
        if token is None or token in ends or not matcher.consume_token(token):
            return
        if matcher.is_stopped():
            return


def _allowed(mask: bytes, start: int) -> int | None:
    """An allowed token: the first one of the first byte from `start` on that allows any."""
    start %= max(len(mask), 1)
    turned = mask[start:] + mask[:start]
    rest = turned.lstrip(b"\0")
    if not rest:
        return None
    at = (start + len(turned) - len(rest)) % len(mask)
    return 8 * at + (rest[0] & -rest[0]).bit_length() - 1


def longest_first(pieces: Sequence[bytes]) -> Callable[[str], list[int]]:
    """An encoder that takes the longest token each time: enough to follow what is forced."""
    tokens = {piece: token for token, piece in enumerate(pieces) if piece}
    longest = max(map(len, tokens), default=1)

    def encode(text: str) -> list[int]:
        rest, ids = text.encode(), list[int]()
        while rest:
            sizes = range(min(longest, len(rest)), 0, -1)
            size = next((size for size in sizes if rest[:size] in tokens), None)
            if size is None:
                return ids
            ids.append(tokens[rest[:size]])
            rest = rest[size:]
        return ids

    return encode
