"""The tiny packages that other tests stand on."""

import pytest
from tiny import tiny_egru_package

from spiketrain.runtime.package import read_package


@pytest.mark.parametrize("weights", ["int8", "float32"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("projection", [True, False])
def test_a_tiny_package_reads_back_and_is_the_same_each_time(tmp_path, weights, tied, projection):
    first, second = (
        tiny_egru_package(tmp_path / name, weights=weights, tied=tied, projection=projection)
        for name in ("a", "b")
    )
    package = read_package(first)
    assert package.spec.weights == weights
    assert package.eos_token_ids == (256,)
    assert package.fingerprint == read_package(second).fingerprint


def test_its_tokenizer_maps_bytes_to_ids(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    path = tiny_egru_package(tmp_path / "a")
    tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    text = "Once, naïve …\n"
    ids = tokenizer.encode(text).ids
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("a<|endoftext|>").ids == [97, 256]
