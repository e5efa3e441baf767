"""A byte-level tokenizer whose normaliser replaces what a regular expression matches."""

import json
from pathlib import Path

from spiketrain.runtime.tokenizer import parse_tokenizer

EXPONENTIAL, PANICS = "(a+)+$", "a" * 28 + "b"  # the library panics on the text
QUADRATIC, HANGS = "a+$", "a" * 500_000 + "b"


def byte_letters():
    """The letters by which byte-level vocabularies write bytes 0 to 255."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte if byte in visible else next(hidden)) for byte in range(256)]


def tokenizer_json(pattern, content):
    """Tokens are bytes under their own number."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [],
            "normalizer": {"type": "Replace", "pattern": {"Regex": pattern}, "content": content},
            "pre_tokenizer": {**level, "use_regex": False},
            "post_processor": None,
            "decoder": {**level, "use_regex": True},
            "model": {
                "type": "BPE",
                "vocab": {letter: byte for byte, letter in enumerate(byte_letters())},
                "merges": [],
            },
        }
    ).encode()


def hostile_tokenizer(pattern, content="c"):
    return parse_tokenizer(Path("tokenizer.json"), tokenizer_json(pattern, content))
