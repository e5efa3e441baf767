"""Texts to evaluate and to train on: .txt and .jsonl, plain and as .xz."""

import json
import lzma
from contextlib import contextmanager, suppress

from corpus_text import corpus_text
from mutation import changed_bytes, changed_text

from spiketrain.evaluation.sources import open_source
from spiketrain.runtime.errors import DataError
from spiketrain.training.data import documents, read_text

TARGET, BATCH, NEEDS = 1_000_000, 5000, ("lzma",)
ENDINGS = (".txt", ".txt.xz", ".jsonl", ".jsonl.xz")


def prepare(folder):
    text = corpus_text(1)[:2000]
    lines = "".join(json.dumps({"text": part, "id": 1}) + "\n" for part in text.split("\n")[:20])
    raw = {".txt": text.encode(), ".jsonl": lines.encode()}
    seeds = [raw[ending.removesuffix(".xz")] for ending in ENDINGS]
    return folder, [
        lzma.compress(s) if e.endswith("z") else s for s, e in zip(seeds, ENDINGS, strict=True)
    ]


def make(chance, seeds):
    """The number of an ending, then the file."""
    which = chance.randrange(len(ENDINGS))
    data = seeds[1][which]
    if not ENDINGS[which].endswith("z") and chance.random() < 0.5:
        return bytes([which]) + changed_text(chance, data.decode()).encode()
    return bytes([which]) + changed_bytes(chance, data)


@contextmanager
def open_calls(seeds):
    def call(data):
        path = seeds[0] / f"corpus{ENDINGS[data[0] % len(ENDINGS)]}"
        path.write_bytes(data[1:])
        with suppress(DataError):
            documents(read_text(path))
        for _ in open_source(str(path)):
            pass

    yield call


def allowed():
    return (DataError,)
