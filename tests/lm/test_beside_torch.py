"""What torch is told to do in a process changes no bit of what the runtime computes there."""

import threading

import numpy as np
import pytest
from tiny import egru_config, egru_tensors

torch = pytest.importorskip("torch")

from spiketrain.runtime import load_model  # noqa: E402
from spiketrain.runtime.package import write_package  # noqa: E402

IDS = [i * 7 % 101 for i in range(40)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model whose cells are denormal: on one thread, on two."""
    config = egru_config("float32", True, False, 101, (300, 500, 300), 300)
    tensors = egru_tensors(config, bias=0.0)
    for layer in range(3):
        tensors[f"layers.{layer}.input.weight"] *= np.float32(1e-39)
    path = tmp_path_factory.mktemp("beside") / "model"
    write_package(path, config, tensors)
    return load_model(path), load_model(path, threads=2)


def bits(model):
    state = model.new_state()
    return model.forward(state, IDS).tobytes() + state.to_bytes()


def test_denormals_count_where_torch_flushes_them(models):
    expected = bits(models[0])
    assert bits(models[1]) == expected
    if not torch.set_flush_denormal(True):
        pytest.skip("torch cannot flush denormals here")
    try:
        found = [bits(model) for model in models]
        assert torch.tensor([1e-39]) * 2 == 0  # as it was told, still
    finally:
        torch.set_flush_denormal(False)
    assert found == [expected, expected]


def test_threads_of_both_work_at_the_same_time(models):
    """Torch computes on its threads while the runtime does on its own."""
    expected, matrix = bits(models[0]), torch.arange(90000.0).reshape(300, 300) / 90000
    product, stop, found = matrix @ matrix, threading.Event(), []

    def multiply():
        while not stop.is_set():
            found.append(torch.equal(matrix @ matrix, product))

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    thread = threading.Thread(target=multiply)
    thread.start()
    try:
        for _ in range(20):
            assert bits(models[1]) == expected
    finally:
        stop.set()
        thread.join()
        torch.set_num_threads(before)
    assert found
    assert all(found)
