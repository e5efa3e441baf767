"""The stand-ins of published checkpoints have the names and shapes that imports ask for."""

import importlib.util
import json
from math import prod
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "full_size.py"


def tool():
    spec = importlib.util.spec_from_file_location("full_size", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_spikegpt_has_the_published_number_of_parameters():
    C, V, layers = 768, 50277, 18
    found = sum(map(prod, tool().spikegpt().values()))
    assert found == 2 * V * C + layers * (13 * C * C + 11 * C) + 4 * C


@pytest.mark.parametrize("name", ["spikingbrain-7b", "w8aspike"])
def test_a_full_size_spikingbrain_passes_the_dry_run(name, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    from spiketrain.cli import main

    tool().main(name, tmp_path / "source")
    size = (tmp_path / "source" / "model.safetensors").stat().st_size
    assert size > 10e9
    arguments = ["convert", tmp_path / "source", tmp_path / "target", "--dry-run"]
    monkeypatch.setattr("sys.argv", ["spiketrain", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    assert "spikingbrain" in "".join(capsys.readouterr())
    assert not (tmp_path / "target").exists()


def test_a_stand_in_is_a_safetensors_file(tmp_path):
    from safetensors import safe_open

    shapes = {"a": (3, 5), "b": (7,)}
    tool().write_safetensors(shapes, tmp_path / "x.safetensors", "F32")
    with safe_open(tmp_path / "x.safetensors", "numpy") as file:
        assert {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()} == shapes  # noqa: SIM118
        assert not file.get_tensor("a").any()
    assert json.loads((tmp_path / "x.safetensors").read_bytes()[8:].split(b"}}")[0] + b"}}")
