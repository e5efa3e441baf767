"""Whole packages: config.json and tensors, loaded, then run for some tokens."""

import json
from contextlib import contextmanager

import numpy as np
import package_kinds
from mutation import changed_bytes, changed_value, json_bytes

from spiketrain.runtime import load_model
from spiketrain.runtime.errors import PackageError, StateError
from spiketrain.runtime.package import compute_fingerprint
from spiketrain.runtime.tensor_file import map_tensors

TARGET, BATCH, NEEDS = 1_000_000, 1000, ()
CONFIG, TENSORS = "config.json", "model.safetensors"
KINDS = (
    "egru int8",
    "egru projection",
    "spikegpt int8",
    "spikegpt float32 pre_ffn",
    "spikingbrain float32",
    "spikingbrain int8-gi16 coded",
)


def prepare(folder):
    packages = [package_kinds.write(folder / f"package-{n}", kind) for n, kind in enumerate(KINDS)]
    return [
        (path, json.loads((path / CONFIG).read_text()), (path / TENSORS).read_bytes())
        for path in packages
    ]


def make(chance, seeds):
    """Which package, bytes of its config, the config, the tensors."""
    which = chance.randrange(len(seeds))
    _, config, tensors = seeds[which]
    text = json_bytes(config)
    if chance.random() < 0.7:
        text = json_bytes(changed_value(chance, config))
        if chance.random() < 0.1:
            text = changed_bytes(chance, text)
    else:
        tensors = changed_bytes(chance, tensors, 8 + int.from_bytes(tensors[:8], "little"))
    return bytes([which]) + len(text).to_bytes(4, "little") + text + tensors


@contextmanager
def open_calls(seeds):
    def call(data):
        path = seeds[data[0] % len(seeds)][0]
        end = 5 + int.from_bytes(data[1:5], "little")
        (path / TENSORS).write_bytes(data[end:])
        (path / CONFIG).write_bytes(_with_fingerprint(path, data[5:end]))
        _run(load_model(path))

    yield call


def _with_fingerprint(path, text):
    """The config with the fingerprint that it should have, where it can have one."""
    try:
        config = json.loads(text)
        config["spiketrain"]["fingerprint"] = compute_fingerprint(
            config, map_tensors(path, TENSORS)
        )
        return json_bytes(config)
    except Exception:
        return text


def _run(model):
    """Read and write tokens; a state that cannot be kept has to say so."""
    state = model.new_state()
    logits = model.forward(state, [1, 2, 0])
    model.step([state], np.array([1]))
    try:
        state.check()
    except StateError:
        return
    assert model.state_from_bytes(state.to_bytes()).position == 4
    assert logits.shape == (3, model.vocab_size)


def allowed():
    return (PackageError,)
