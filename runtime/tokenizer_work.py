"""Says whether a tokenizer's work is in proportion to the text, from the tokenizer's description.

Regular expressions backtrack, replacements multiply, and some models look at each pair of
positions. The module lists harmless parts; all other parts count as unbounded.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

MAX_GROWTH = 16  # bytes that replacements may make of one
MAX_PIECE = 512  # bytes of a piece, where each place of a text tries all sizes
MAX_WORD = 1000  # characters of a word that WordPiece takes apart
_NORMALIZER, _CHARSMAP_FIELD = 3, 2  # numbers of fields in a SentencePiece model
_CHARSMAP = 64  # bytes that a normaliser's table may put in place of a character

_PLAIN_NORMALIZERS = frozenset((
    "BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Strip",
    "StripAccents",
))  # fmt: skip
_PLAIN_PRE_TOKENIZERS = frozenset((
    "BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "FixedLength", "Metaspace",
    "Punctuation", "UnicodeScripts", "Whitespace", "WhitespaceSplit",
))  # fmt: skip

_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS = r"\s+(?!\S)|\s+"
_LINES = r"\s*[\r\n]+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = r"[^\r\n\p{L}\p{N}]?"
_SHORT = r"'s|'t|'re|'ve|'m|'ll|'d"

# Of published tokenizers. A run that one of their quantifiers takes is part of a match, so that no
# character is gone over more than a few times.
KNOWN_PATTERNS = frozenset((
    rf"{_SHORT}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_BLANKS}",  # GPT-2 and its heirs
    rf"{_ENDINGS}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_LINES}|{_BLANKS}",  # cl100k, Llama 3
    rf"{_ENDINGS}|{_WORD}|\p{{N}}|{_SIGNS}|{_LINES}|{_BLANKS}",  # Qwen 2
    rf"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|{_WORD}|\p{{N}}|{_SIGNS}|{_LINES}"
    rf"|{_BLANKS}",
    rf"{_CASED}{_UPPER}*{_LOWER}+{_ENDINGS}?|{_CASED}{_UPPER}+{_LOWER}*{_ENDINGS}?|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES}|{_BLANKS}",  # o200k
    r"\p{N}", r"\d", r"[0-9]", r"\p{N}{1,3}", r"[0-9][0-9][0-9]", r"\p{N}{1}",
    r"[\r\n]", r"\n", r" ", r"\s", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", r"[^\n]+|[\n]+",
    r" {2,}", r"\s+", r"\p{L}+", r"\p{N}+", r"\d+",
))  # fmt: skip


def unbounded_part(description: dict[str, Any]) -> str | None:
    """Name of a part whose work or memory a text may drive up; None if there is no such part."""
    growth = 1.0
    for part in _parts(description.get("normalizer"), "normalizers"):
        kind = part.get("type")
        if kind == "Replace":
            if not _is_known(part.get("pattern")):
                return "normalizer Replace"
            growth *= _growth(part)
        elif kind == "Prepend":
            growth *= max(1, len(str(part.get("prepend", "")).encode()))
        elif kind == "Precompiled":
            growth *= max(1.0, _longest_entry(part) / _CHARSMAP)
        elif kind not in _PLAIN_NORMALIZERS:
            return f"normalizer {kind}"
        if growth > MAX_GROWTH:
            return f"normalizer {kind}"
    for part in _parts(description.get("pre_tokenizer"), "pretokenizers"):
        kind = part.get("type")
        if kind == "Split" and _is_known(part.get("pattern")):
            continue
        if kind not in _PLAIN_PRE_TOKENIZERS:
            return f"pre_tokenizer {kind}"
    return _unbounded_model(description.get("model"))


def unbounded_sentencepiece(source: bytes, pieces: list[bytes]) -> str | None:
    """The same for a SentencePiece model, of which these are the pieces."""
    if max(map(len, pieces), default=0) > MAX_PIECE:
        return "model"
    normalizer = b"".join(_fields(source, _NORMALIZER))  # repeats of a message are merged
    tables = _fields(normalizer, _CHARSMAP_FIELD)
    if max(map(_longest_text, tables), default=0) > MAX_GROWTH * _CHARSMAP:
        return "normalizer"
    return None


def _fields(message: bytes, field: int) -> list[bytes]:
    """The contents of the fields of a protocol buffer that have this number."""
    at, contents = 0, list[bytes]()
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(message, at)
        elif kind == 2:
            size, at = _varint(message, at)
            if tag >> 3 == field:
                contents.append(message[at : at + size])
            at += size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            break
    return contents


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, at


def _parts(part: Any, inner: str) -> Iterator[dict[str, Any]]:
    """A component, or those of a sequence of them; anything else counts as one of no kind."""
    if part is None:
        return
    if isinstance(part, dict) and part.get("type") == "Sequence":
        for other in part.get(inner) or ():
            yield from _parts(other, inner)
    else:
        yield part if isinstance(part, dict) else {}


def _is_known(pattern: Any) -> bool:
    if not isinstance(pattern, dict):
        return False
    return bool(pattern.get("String")) or pattern.get("Regex") in KNOWN_PATTERNS


def _growth(part: dict[str, Any]) -> float:
    """Bytes that a replacement makes of one; a regular expression may match a single byte."""
    text = part["pattern"].get("String")
    return max(1.0, len(str(part.get("content", "")).encode()) / len((text or "a").encode()))


def _longest_entry(part: dict[str, Any]) -> int:
    try:
        return _longest_text(
            base64.b64decode(part.get("precompiled_charsmap") or "", validate=True)
        )
    except ValueError:
        return 1 << 30


def _longest_text(table: bytes) -> int:
    """Bytes of the longest text in a normaliser's table, which stand after its index."""
    index = int.from_bytes(table[:4], "little")
    return max(map(len, table[4 + index :].split(b"\0")))


def _unbounded_model(model: Any) -> str | None:
    kind = model.get("type") if isinstance(model, dict) else None
    if kind == "WordPiece" and not 0 <= model.get("max_input_chars_per_word", 100) <= MAX_WORD:
        return "model WordPiece"
    if kind == "Unigram":
        pieces = [str(entry[0]) for entry in model.get("vocab", ()) if entry]
        if max((len(piece.encode()) for piece in pieces), default=0) > MAX_PIECE:
            return "model Unigram"
    return None
