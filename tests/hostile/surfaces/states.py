"""States as `model.state_from_bytes` takes them, most with the checksum that fits their content."""

import hashlib
from contextlib import contextmanager

import package_kinds
from mutation import changed_bytes

from spiketrain.runtime import load_model
from spiketrain.runtime.errors import StateError

TARGET, BATCH, NEEDS = 10_000_000, 20_000, ()
KINDS = ("egru int8", "egru float32", "spikegpt int8", "spikingbrain int8-gi16 coded")
CHECKSUM_BYTES, FINGERPRINT_END = 32, 64


def sealed(body):
    return body + hashlib.sha256(body).digest()


def prepare(folder):
    seeds = []
    for number, kind in enumerate(KINDS):
        model = load_model(package_kinds.write(folder / f"state-{number}", kind))
        state = model.new_state()
        model.forward(state, [1, 2, 3])
        seeds.append((model, state.to_bytes()))
    return seeds


def make(chance, seeds):
    which = chance.randrange(len(seeds))
    blob = seeds[which][1]
    if chance.random() < 0.2:
        return bytes([which]) + changed_bytes(chance, blob)
    start = chance.choice((0, FINGERPRINT_END, FINGERPRINT_END))
    return bytes([which]) + sealed(changed_bytes(chance, blob[:-CHECKSUM_BYTES], start))


@contextmanager
def open_calls(seeds):
    def call(data):
        model = seeds[data[0] % len(seeds)][0]
        state = model.state_from_bytes(data[1:])
        assert state.to_bytes() == data[1:]
        if state.position < 1 << 62:
            model.forward(state, [1])
            model.state_from_bytes(state.to_bytes())

    yield call


def allowed():
    return (StateError,)
