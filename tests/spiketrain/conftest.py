"""A model of each kind that makes events, and commands as JSON."""

import json

import pytest
import tiny
import tiny_spikegpt
import tiny_spikingbrain
from command_in_process import call
from eval_text import TEXT

from spiketrain import runtime

MAKERS = {
    "egru": tiny.tiny_egru_package,
    "egru-float32": lambda path: tiny.tiny_egru_package(path, weights="float32", projection=True),
    "spikegpt": tiny_spikegpt.tiny_spikegpt_package,
    "spikegpt-counts": lambda path: tiny_spikegpt.tiny_spikegpt_package(
        path, neuron_position="projections", binary_embedding=False
    ),
    "spikingbrain": tiny_spikingbrain.tiny_spikingbrain_package,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: runtime.load_model(make(folder / name)) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny.tiny_egru_package(tmp_path_factory.mktemp("eval") / "package")


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "text.txt"


@pytest.fixture
def read(monkeypatch, capsys):
    """The JSON object that a command prints."""

    def run(*arguments):
        capsys.readouterr()
        assert call(monkeypatch, *arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return run
