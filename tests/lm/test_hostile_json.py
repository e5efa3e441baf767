"""A checkpoint's JSON that no parser should follow is refused by file."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain.lm.character_tokenizer import character_tokenizer
from spiketrain.lm.checkpoint import CheckpointError, read_settings
from spiketrain.lm.end_of_text import stated_ends
from spiketrain.lm.shards import INDEX, Shards
from spiketrain.runtime.errors import SpiketrainError
from spiketrain.training.config import ConfigError
from spiketrain.training.teachers import run_model, run_weights

DEEP = '{"a":' * 200_000


def test_settings_nested_too_deeply_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(DEEP)
    with pytest.raises(CheckpointError, match=r"config\.json: must be a JSON object.* too deeply"):
        read_settings(tmp_path)
    with pytest.raises(SpiketrainError, match=r"config\.json: must be a readable JSON object"):
        stated_ends(tmp_path)


def test_an_index_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / INDEX).write_text(DEEP)
    with pytest.raises(ValueError, match="must hold an object weight_map"):
        Shards(tmp_path)


def test_a_vocabulary_nested_too_deeply_is_refused():
    with pytest.raises(ValueError, match="nested too deeply"):
        character_tokenizer(DEEP.encode())


def test_a_run_whose_files_are_damaged_is_no_teacher(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ConfigError, match=r"teacher must be a finished run.*checkpoint\.pt"):
        run_weights(tmp_path)
    import torch

    torch.save({"model": {}}, tmp_path / "checkpoint.pt")
    (tmp_path / "config.json").write_text(DEEP)
    with pytest.raises(ConfigError, match=r"config\.json: must be a run's recipe"):
        run_model(tmp_path)
