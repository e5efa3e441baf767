"""What is done to an input that is in order, so that it no longer is."""

import json
from random import Random

NUMBERS = (0, 1, -1, 2, 7, 255, 256, 65535, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64)
REALS = (0.0, -0.0, 0.5, 1e-300, 1e300, -1e300, 5e-324, float("inf"), float("-inf"), float("nan"))
WORDS = ("", "a", "\0", "é" * 9, "/../x", "<|endoftext|>", "1e999", "\u2028", "{", '"')
TEXTS = ("", "a", "\0", "\ud800", "é" * 9, "/../x", "x" * 3000, "<|endoftext|>", "a" * 28 + "b")
EDGES = [(number % 2**64).to_bytes(8, "little") for number in (*NUMBERS, -(2**31), -(2**63))]
MAX_EDITS = 4


def changed_bytes(chance: Random, data: bytes, start: int = 0) -> bytes:
    """`data` with a few bytes from `start` on flipped, set, cut, repeated or put in."""
    out = bytearray(data)
    for _ in range(chance.randint(1, MAX_EDITS)):
        _change(chance, out, chance.randint(min(start, len(out)), len(out)))
    return bytes(out)


def _change(chance: Random, out: bytearray, at: int) -> None:
    kind = chance.randrange(7)
    if kind < 3 and at < len(out):
        out[at] ^= 1 << chance.randrange(8)
    elif kind == 3:
        width = chance.choice((1, 2, 4, 8))
        out[at : at + width] = chance.choice(EDGES)[:width]
    elif kind == 4:
        del out[at : at + chance.choice((1, 4, 8, 64, len(out)))]
    elif kind == 5:
        out[at:at] = out[at : at + chance.choice((1, 8, 64))] * chance.randint(1, 3)
    else:
        out[at:at] = chance.randbytes(chance.choice((1, 4, 9)))


def changed_text(chance: Random, text: str, words: tuple[str, ...] = ()) -> str:
    """`text` with pieces of itself, and `words`, moved, repeated and taken away."""
    for _ in range(chance.randint(1, MAX_EDITS)):
        at, end = sorted((chance.randint(0, len(text)), chance.randint(0, len(text))))
        piece = text[at : min(end, at + 40)]
        kind = chance.randrange(5)
        if kind == 0:
            text = text[:at] + text[at + len(piece) :]
        elif kind == 1:
            text = text[:at] + piece * chance.randint(1, 4) + text[at:]
        elif kind == 2:
            text = text[:end] + piece + text[end:]
        elif kind == 3:
            text = text[:at] + chr(chance.choice((0, 10, 34, 39, 92, 123, 233, 0x2581))) + text[at:]
        else:
            text = text[:at] + chance.choice(words or WORDS) + text[at:]
    return text


def any_value(chance: Random, depth: int = 0):
    """A value of JSON, small or extreme."""
    kind = chance.randrange(7 if depth < 3 else 5)
    if kind < 2:
        return chance.choice(NUMBERS) * chance.choice((1, 1, 1, -1))
    if kind == 2:
        return chance.choice(REALS)
    if kind == 3:
        return chance.choice(TEXTS)
    if kind == 4:
        return chance.choice((None, True, False))
    items = [any_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return items if kind == 5 else {chance.choice(TEXTS): item for item in items}


def changed_value(chance: Random, value):
    """A copy of a value of JSON in which a few places hold something else, or are gone."""
    copy = json.loads(json.dumps(value))
    for _ in range(chance.randint(1, 3)):
        copy = _changed_place(chance, copy)
    return copy


def _changed_place(chance: Random, value):
    """Go down by chance, and change what is there."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.05:
        return _near(chance, value)
    key = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if chance.random() < 0.1:
        del value[key]
    elif isinstance(value, dict) and chance.random() < 0.1:
        value[chance.choice(TEXTS)] = value.pop(key)
    else:
        value[key] = _changed_place(chance, value[key])
    return value


def _near(chance: Random, value):
    """Something close to a value, or anything."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and chance.random() < 0.4:
        return chance.choice((value + 1, value - 1, -value, value * 2, float(value)))
    if isinstance(value, str) and chance.random() < 0.4:
        return changed_text(chance, value)
    return any_value(chance)


def json_bytes(value) -> bytes:
    """JSON as Python writes it, which may hold NaN and lone surrogates."""
    return json.dumps(value).encode()
