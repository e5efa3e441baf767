"""Weight formats: which tensors store a matrix or an embedding."""

import pytest

from spiketrain.runtime.formats import FORMATS, corrected, format_named, group_of
from spiketrain.runtime.tensor_table import Array, Embedding, Matrix, num_parameters, stored_tensors

WEIGHTS = {
    "float32": {"weight": ("float32", (33, 131))},
    "bfloat16": {"weight": ("uint16", (33, 131))},
    "int8": {"weight": ("int8", (33, 131)), "scale": ("float32", (131,))},
    "int8-gi16": {"weight": ("int8", (33, 131)), "scale": ("float32", (3, 131))},
    "int4-gi": {"weight": ("uint8", (33, 66)), "scale": ("float32", (2, 131))},
    "int4-go": {
        "weight": ("uint8", (33, 66)),
        "multiplier": ("uint8", (33, 2)),
        "scale": ("float32", (131,)),
    },
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_format_stores_a_matrix_in_the_tensors_of_format_version_1(name):
    tensors = format_named(name).matrix(33, 131)
    assert tensors == WEIGHTS[name]
    assert list(tensors) == list(WEIGHTS[name])


def test_every_format_of_matrices_is_covered_here():
    assert set(FORMATS) - {"bits"} == set(WEIGHTS) - {"int8-gi16"}


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("float32", {"weight": ("float32", (7, 19))}),
        ("bfloat16", {"weight": ("uint16", (7, 19))}),
        ("int8", {"weight": ("int8", (7, 19)), "scale": ("float32", (7,))}),
        ("bits", {"weight": ("uint8", (7, 3))}),
    ],
)
def test_an_embedding_has_a_scale_a_row_and_eight_bits_a_byte(name, tensors):
    assert format_named(name).rows(7, 19) == tensors


@pytest.mark.parametrize("name", ["int3", "int8-gi0", "int8-gi", "int8-gi1000000", "INT8", ""])
def test_a_name_that_is_no_format_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"weight format must be one of .*int8-gi<group>.*, got"):
        format_named(name)
    assert group_of(name) == 0


def test_the_layout_of_int4_follows_the_way_a_matrix_is_read():
    by_rows, whole = (Matrix("m", 33, 131, "int4", by_rows=rows) for rows in (True, False))
    assert (by_rows.format, whole.format) == ("int4-go", "int4-gi")
    assert set(by_rows.stored()) == {"m.weight", "m.multiplier", "m.scale"}


def test_entries_list_their_tensors_in_order_and_count_what_was_fitted():
    matrix = Matrix("m", 4, 3, "int8", by_rows=True, counts=True, corrections=2, bias=True)
    entries = [Embedding("e", 5, 9, "bits"), Array("a", (2, 3)), Array("k", (2,), fitted=False)]
    assert list(stored_tensors([*entries, matrix])) == [
        "e.weight", "a", "k", "m.threshold_scale", "m.weight", "m.scale", "m.extra_row",
        "m.extra_column", "m.extra", "m.bias",
    ]  # fmt: skip
    assert num_parameters([*entries, matrix]) == 5 * 9 + 6 + (4 * 3 + 3 + 1)
    assert corrected(4, 2)["extra_row"] == ("int32", (5,))
