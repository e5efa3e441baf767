"""A model's config has the fields of its package, stated once, and those of training."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from spiketrain.lm.export import family_module  # noqa: E402
from spiketrain.lm.families import NAMES  # noqa: E402
from spiketrain.lm.stored import stored_blocks, stored_matrix, stored_rows  # noqa: E402
from spiketrain.runtime import fields  # noqa: E402
from spiketrain.runtime.formats import FORMATS, format_named  # noqa: E402


@pytest.mark.parametrize("name", NAMES)
def test_a_config_has_the_fields_and_defaults_of_its_package(name):
    config = family_module(name).Config()
    statement = config.statement
    training = set(fields.rules(statement.training))
    for field, default in fields.defaults(statement.package).items():
        if field in statement.export or field in training or field in statement.start:
            continue
        value = getattr(config, field)
        assert (tuple(value) if isinstance(value, list) else value) == default, field
    assert set(fields.rules(statement.package)) - set(statement.export) <= set(statement.rules)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_read_from_what_it_wrote(name):
    kind = family_module(name).Config
    config = kind(vocab_size=300)
    again = kind.from_dict(json.loads(config.to_json_string(use_diff=False)))
    assert {key: getattr(again, key) for key in config.statement.rules} == {
        key: getattr(config, key) for key in config.statement.rules
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_field_of_the_package_is_refused_by_the_packages_rule(name):
    with pytest.raises(ValueError, match=r"vocab_size must be a whole number in \[1, 16777216\]"):
        family_module(name).Config(vocab_size=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_field_of_training_is_refused_by_its_own_rule(name):
    with pytest.raises(ValueError, match=r"compute_dtype must be one of .*, got 'float16'"):
        family_module(name).Config(compute_dtype="float16")


@pytest.mark.parametrize("form", [name for name in FORMATS if name != "bits"])
def test_stored_matrices_are_what_their_format_states(form):
    weight = torch.randn(70, 261, generator=torch.Generator().manual_seed(1))
    stored = {name: value.numpy() for name, value in stored_matrix(weight, form).items()}
    assert _described(stored) == format_named(form).matrix(70, 261)
    blocks = [(0, weight[:, :128]), (128, weight[:, 128:])]
    joined = stored_blocks(blocks, (261, 70), form)
    assert list(joined) == list(stored)
    assert _described({k: v.numpy() for k, v in joined.items()}) == _described(stored)


@pytest.mark.parametrize("form", ["float32", "bfloat16", "int8", "bits"])
def test_stored_embeddings_are_what_their_format_states(form):
    rows = torch.randn(9, 21, generator=torch.Generator().manual_seed(1))
    stored = {name: value.numpy() for name, value in stored_rows(rows, form).items()}
    assert _described(stored) == format_named(form).rows(9, 21)


def _described(tensors: dict[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (str(value.dtype), value.shape) for name, value in tensors.items()}
