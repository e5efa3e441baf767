"""tokenizer.json and tokenizer.model: parsed, then a text there and back."""

from contextlib import contextmanager
from pathlib import Path

import hostile_tokenizer
import tiny
from mutation import changed_bytes, changed_value, json_bytes

import spiketrain
from spiketrain.runtime.errors import TokenizerError
from spiketrain.runtime.tokenizer import parse_tokenizer

TARGET, BATCH, NEEDS = 1_000_000, 2000, ("tokenizers", "sentencepiece")
TEXT = "One day a fox, ünd\0 aaaa<|endoftext|>"


def prepare(folder):
    import json

    model = Path(spiketrain.bundled_model()) / "tokenizer.model"
    described = json.loads(hostile_tokenizer.tokenizer_json("a+", "c"))
    return (described, tiny.byte_tokenizer(257)), model.read_bytes()


def make(chance, seeds):
    """A letter for the kind, then the file."""
    described, model = seeds
    if chance.random() < 0.2:
        return b"m" + changed_bytes(chance, model)
    text = json_bytes(changed_value(chance, chance.choice(described)))
    return b"j" + (changed_bytes(chance, text) if chance.random() < 0.1 else text)


@contextmanager
def open_calls(seeds):
    def call(data):
        name = "tokenizer.json" if data[:1] == b"j" else "tokenizer.model"
        tokenizer = parse_tokenizer(Path(name), data[1:])
        if tokenizer.unbounded is None:  # others run in a process with limits
            tokenizer.decode(tokenizer.encode(TEXT))

    yield call


def allowed():
    return (TokenizerError,)
