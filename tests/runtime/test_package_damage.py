"""Whatever damages a package, loading it fails or says the same."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from package_edits import (
    make,
    split_tensor_file,
    to_shards,
)

from spiketrain.runtime.errors import PackageError
from spiketrain.runtime.package import read_package

relaxed = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def content_of(package):
    """Everything that a loaded package says, but for its provenance."""
    config = json.loads(json.dumps(package.config))
    del config["spiketrain"]["provenance"]
    tensors = {name: array.tobytes() for name, array in package.tensors.items()}
    return config, tensors, package.generation_config


@pytest.fixture(scope="module", params=["one file", "shards"])
def damaged(request, tmp_path_factory):
    """A package to damage: its directory, its files' bytes, what it says."""
    package = make(tmp_path_factory.mktemp("damaged") / "package")
    if request.param == "shards":
        to_shards(package)
    files = {file: file.read_bytes() for file in sorted(package.iterdir())}
    return package, files, content_of(read_package(package))


def refused_or_same(damaged, file, raw, allow_defaults):
    """Load with `file` changed: PackageError, or the very same content."""
    package, files, expected = damaged
    file.write_bytes(raw)
    try:
        found = content_of(read_package(package))
    except PackageError:
        return
    finally:
        file.write_bytes(files[file])
    assert found[:2] == expected[:2]
    assert allow_defaults or found == expected


@relaxed
@given(data=st.data())
def test_no_flipped_bit_goes_unnoticed(damaged, data):
    file: Path = data.draw(st.sampled_from(sorted(damaged[1])))
    raw = bytearray(damaged[1][file])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    # the generation defaults are outside the fingerprint: valid other numbers may load
    refused_or_same(damaged, file, bytes(raw), file.name == "generation_config.json")


@relaxed
@given(data=st.data())
def test_no_truncation_goes_unnoticed(damaged, data):
    file: Path = data.draw(st.sampled_from(sorted(damaged[1])))
    raw = damaged[1][file]
    refused_or_same(damaged, file, raw[: data.draw(st.integers(0, len(raw) - 1))], False)


@relaxed
@given(data=st.data())
def test_no_inserted_bytes_go_unnoticed(damaged, data):
    file: Path = data.draw(st.sampled_from(sorted(damaged[1])))
    raw, at = damaged[1][file], data.draw(st.integers(0, len(damaged[1][file])))
    extra = data.draw(st.binary(min_size=1, max_size=8))
    allow = file.name == "generation_config.json"
    refused_or_same(damaged, file, raw[:at] + extra + raw[at:], allow)


def test_every_flipped_data_byte_is_caught(package):
    file = package / "model.safetensors"
    raw = file.read_bytes()
    start = len(raw) - len(split_tensor_file(package)[1])
    for at in range(start, len(raw), 7):
        changed = bytearray(raw)
        changed[at] ^= 0x10
        file.write_bytes(changed)
        with pytest.raises(PackageError):
            read_package(package)
