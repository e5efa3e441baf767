"""A program for `confinement.py` that encodes texts with a package's tokenizer."""

import array
import json
from collections.abc import Callable
from pathlib import Path

from spiketrain.runtime.errors import TokenizerError
from spiketrain.runtime.tokenizer import parse_tokenizer
from spiketrain.serving.isolation.confined_process import Refused

WARM = b""


def setup_of(kind: str, source: bytes) -> bytes:
    """What `load` takes: a tokenizer's kind and the content of its file."""
    return json.dumps({"kind": kind}).encode() + b"\n" + source


def load(setup: bytes) -> Callable[[bytes], bytes]:
    """An encoder: UTF-8 in, 32-bit token ids out."""
    head, _, source = setup.partition(b"\n")
    name = "tokenizer.json" if json.loads(head)["kind"] == "huggingface" else "tokenizer.model"
    tokenizer = parse_tokenizer(Path(name), source)

    def encoded(question: bytes) -> bytes:
        try:
            return array.array("I", tokenizer.encode(question.decode())).tobytes()
        except TokenizerError as error:
            raise Refused(str(error)) from None

    return encoded
