"""Headers of tensor files: model.safetensors as `map_tensors` reads it."""

from contextlib import contextmanager

import package_edits
from mutation import changed_bytes, changed_value, json_bytes

from spiketrain.runtime.errors import PackageError
from spiketrain.runtime.tensor_file import map_tensors

TARGET, BATCH, NEEDS = 10_000_000, 20_000, ()
FILE = "model.safetensors"


def prepare(folder):
    package = package_edits.make(folder / "header")
    header, data = package_edits.split_tensor_file(package)
    return package, header, data, (package / FILE).read_bytes()


def make(chance, seeds):
    _, header, data, raw = seeds
    if chance.random() < 0.4:
        return changed_bytes(chance, raw)
    text = json_bytes(changed_value(chance, header))
    if chance.random() < 0.2:
        text = changed_bytes(chance, text)
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text + data


@contextmanager
def open_calls(seeds):
    package = seeds[0]

    def call(data):
        (package / FILE).write_bytes(data)
        return {name: array.sum() for name, array in map_tensors(package, FILE).items()}

    yield call


def allowed():
    return (PackageError,)
