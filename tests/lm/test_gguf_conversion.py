"""A GGUF file packed in NumPy: the bits that the same network in torch is packed to."""

import numpy as np
import pytest
from golden_gguf import NAMES, golden_file
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spiketrain.lm.conversion.gguf import GgufExporter, gguf_spec
from spiketrain.lm.conversion.gguf.rounding import stored_matrix, stored_rows
from spiketrain.lm.sources.gguf import open_gguf

torch = pytest.importorskip("torch")

from spiketrain.lm import stored as in_torch  # noqa: E402
from spiketrain.lm.conversion.transformer import from_transformer, with_spikes  # noqa: E402
from spiketrain.lm.families.spikingbrain import Exporter  # noqa: E402
from spiketrain.lm.shards import Held  # noqa: E402

NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32)
ROWS = arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=NUMBERS)
FORMATS = pytest.mark.parametrize("form", ["float32", "bfloat16", "int8"])


def same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        values = np.ascontiguousarray(values)
        assert (ours[name].dtype, ours[name].shape) == (values.dtype, values.shape), name
        assert np.ascontiguousarray(ours[name]).tobytes() == values.tobytes(), name


def in_blocks(rows):
    return ((start, rows[start : start + 2]) for start in range(0, len(rows), 2))


@FORMATS
def test_rounding_has_the_bits_of_rounding_in_torch(form):
    @given(ROWS)
    def check(rows):
        tensor = torch.from_numpy(rows)
        expected = in_torch.stored_matrix(tensor.t().contiguous(), form)
        stored = stored_matrix(in_blocks(rows), rows.shape, form)
        same_bits(stored, {name: value.numpy() for name, value in expected.items()})
        expected = in_torch.stored_rows(tensor, form)
        stored = stored_rows(in_blocks(rows), rows.shape, form)
        same_bits(stored, {name: value.numpy() for name, value in expected.items()})

    check()


@FORMATS
@pytest.mark.parametrize("spikes", [None, (2.5, 0.75)])
@pytest.mark.parametrize("name", NAMES)
def test_a_package_is_that_of_the_same_network_in_torch(tmp_path, name, spikes, form):
    source = open_gguf(golden_file(tmp_path, name))
    spec = gguf_spec(source.config, weights=form, spikes=spikes is not None)
    exporter = GgufExporter(spec, source, spikes, block_bytes=4096)
    tensors = Held({key: torch.from_numpy(values) for key, values in source.tensors()})
    model = from_transformer(tensors, source.config)
    if spikes is not None:
        model = with_spikes(model, spike_k=spikes[0], dead_zone=spikes[1])
    expected = Exporter(model.config, Held(model.state_dict()), form)
    assert exporter.parts == expected.parts
    for part in exporter.parts:
        same_bits(exporter.tensors(part), expected.tensors(part))
        assert exporter.part_bytes(part) == expected.part_bytes(part)
    assert exporter.package_config() == expected.package_config()
