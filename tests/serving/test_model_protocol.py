"""What serving asks of a model is what the runtime's Model and the tests' fake one have."""

import inspect

import pytest
from fake_model import ByteTokenizer, FakeModel
from tiny import tiny_egru_package

from spiketrain import runtime
from spiketrain.serving.model import Model, Tokenizer


def members(protocol):
    return {name for kind in protocol.__mro__ for name in vars(kind) if not name.startswith("_")}


def parameters(function):
    """Of a bound or an unbound function, those that are not its object: kinds and defaults."""
    return [
        (parameter.default, parameter.name if parameter.default is not parameter.empty else None)
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    ]


@pytest.fixture(params=["runtime", "fake"])
def model(request, tmp_path):
    if request.param == "fake":
        return FakeModel()
    return runtime.load_model(tiny_egru_package(tmp_path / "tiny"))


def test_a_model_has_all_that_serving_asks_of_it(model):
    for name in sorted(members(Model)):
        stated = inspect.getattr_static(Model, name)
        assert hasattr(model, name), name
        if not isinstance(stated, property):
            assert parameters(getattr(model, name)) == parameters(stated), name


def test_a_tokenizer_has_all_that_serving_asks_of_it():
    for name in sorted(members(Tokenizer)):
        stated = inspect.getattr_static(Tokenizer, name)
        assert hasattr(ByteTokenizer(), name), name
        if not isinstance(stated, property):
            assert parameters(getattr(ByteTokenizer(), name)) == parameters(stated), name
