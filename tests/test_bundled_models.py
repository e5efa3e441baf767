"""The models that come along load by name, and do what their reports say they do."""

import json
import math

import numpy as np
import pytest

import spiketrain
from spiketrain import runtime
from spiketrain.commands.model_argument import model_directory
from spiketrain.runtime.scoring import token_nats

TEXT = (
    "Once upon a time there was a poor woodcutter who lived with his wife at the edge of a great"
    " forest. They had little to eat, and in the winter the wind came in through the walls."
)


@pytest.mark.parametrize("name", spiketrain.BUNDLED_MODELS)
def test_a_bundled_model_expects_a_tale(name):
    model = runtime.load_model(model_directory(name))
    ids = model.tokenizer.encode(TEXT)
    logits = model.forward(model.new_state(), ids)
    nats = token_nats(logits[:-1], np.asarray(ids[1:]))
    assert nats.sum() / math.log(2) / len(TEXT) < 1.7
    report = json.loads((model.path / "report.json").read_text())
    assert report


def test_a_folder_of_that_name_comes_before_a_bundled_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_directory("bundled") == model_directory("stories-egru")
    (tmp_path / "stories-egru").mkdir()
    assert model_directory("stories-egru") != model_directory("bundled")


def test_another_name_is_refused():
    with pytest.raises(ValueError, match=r"name must be one of .* got 'stories'"):
        spiketrain.bundled_model("stories")
