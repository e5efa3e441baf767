"""Exported sessions as `from_blob` takes them: what is accepted can be kept and gone on with."""

from contextlib import contextmanager

import numpy as np
import package_kinds
from mutation import changed_bytes
from surfaces.states import CHECKSUM_BYTES, sealed

from spiketrain.runtime import load_model
from spiketrain.serving.engine.starting_point import Start
from spiketrain.serving.sessions.blob import from_blob, to_blob
from spiketrain.serving.sessions.errors import BlobDamaged, BlobForeign

TARGET, BATCH, NEEDS = 10_000_000, 20_000, ("structlog",)
NAME_END, STATE_START = 83, 115  # of the header: after the fingerprint, and after all of it


def prepare(folder):
    model = load_model(package_kinds.write(folder / "session", "egru int8"))
    blobs = []
    for recent in ((), (1, 2, 3)):
        state = model.new_state()
        logits = model.forward(state, [1, 2, 3])[-1]
        start = Start(state, logits.astype(np.float32), recent)
        blobs.append(to_blob(start, 7, model.fingerprint))
    return model, blobs


def make(chance, seeds):
    blob = chance.choice(seeds[1])
    if chance.random() < 0.2:
        return changed_bytes(chance, blob)
    return sealed(_changed(chance, blob[:-CHECKSUM_BYTES]))


def _changed(chance, body):
    """With the state's own checksum made good in half of the cases."""
    if chance.random() < 0.5:
        return changed_bytes(chance, body, chance.choice((0, NAME_END, STATE_START)))
    size = int.from_bytes(body[91:99], "little")
    end = STATE_START + size
    state = sealed(changed_bytes(chance, body[STATE_START : end - CHECKSUM_BYTES], 64))
    head = body[:91] + len(state).to_bytes(8, "little") + body[99:STATE_START]
    return head + state + body[end:]


@contextmanager
def open_calls(seeds):
    model = seeds[0]

    def call(data):
        start, seed = from_blob(data, model)
        assert to_blob(start, seed, model.fingerprint) == data
        if start.state.position < 1 << 62:
            model.forward(start.state, [1])

    yield call


def allowed():
    return (BlobDamaged, BlobForeign)
