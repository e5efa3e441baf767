"""The models that come along load by name, and do what their reports say they do."""

import hashlib
import json
import math
from pathlib import Path

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


def test_every_file_of_the_bundled_models_is_the_one_that_was_published():
    root = Path(__file__).parents[1]
    lines = (root / "tests/data/bundled_models.sha256").read_text().splitlines()
    published = {path: digest for digest, path in (line.split() for line in lines)}
    files = [path for path in (root / "spiketrain/models").rglob("*") if path.is_file()]
    here = {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    assert here == published
