"""Which reader a path gets, and what a path without one is told."""

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain.lm.checkpoint import CheckpointError, load_checkpoint, read_checkpoint, recognise  # noqa: E402
from spiketrain.lm.families.egru import Config, Model  # noqa: E402
from spiketrain.lm.upstream_choices import UpstreamChoices  # noqa: E402

DATA = Path(__file__).parents[1] / "data"


def test_every_kind_of_checkpoint_is_told_by_its_files(tmp_path):
    (tmp_path / "rwkv").mkdir()
    (tmp_path / "rwkv" / "config.json").write_text('{"model_type": "rwkv"}')
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint.pt").touch()
    names = {
        DATA / "egru" / "lm_tied_noproj.cpt": "official-egru",
        DATA / "spikegpt" / "v77_l3.pth": "official-spikegpt",
        DATA / "spikingbrain" / "fp": "published-spikingbrain",
        tmp_path / "rwkv": "rwkv4",
        tmp_path / "run": "run",
        tmp_path: "directory",
        tmp_path / "none.cpt": "directory",
    }
    assert {path: recognise(path).name for path in names} == names


def test_keys_decide_where_a_suffix_does_not(tmp_path):
    path = shutil.copy(DATA / "spikegpt" / "v77_l3.pth", tmp_path / "model.pt")
    assert recognise(path).name == "official-spikegpt"
    assert load_checkpoint(path).config.model_type == "spikegpt"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"needs model\.config\.yaml or config\.yaml beside"):
        load_checkpoint(path)


def test_a_runs_folder_is_read_as_its_model(tmp_path):
    Model(Config(vocab_size=7, embedding_size=8, hidden_sizes=[8])).save_pretrained(
        tmp_path / "model"
    )
    (tmp_path / "checkpoint.pt").touch()
    ids = torch.tensor([[1, 2, 3]])
    model = load_checkpoint(tmp_path / "model")
    assert torch.equal(load_checkpoint(tmp_path)(ids).logits, model(ids).logits)
    with pytest.raises(CheckpointError, match="window_keys says nothing"):
        read_checkpoint(tmp_path, UpstreamChoices(window_keys=3))


def test_what_no_reader_knows_is_told_which_kinds_there_are(tmp_path):
    (tmp_path / "file.bin").touch()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    kinds = ("'rwkv', 'gla_swa', 'egru', 'spikegpt', 'spikingbrain'", "transformer-to-spiking")
    for path, parts in (
        (tmp_path / "file.bin", ("suffix must be .cpt, .pt or .pth, got '.bin'",)),
        (tmp_path / "none", ("no such file",)),
        (tmp_path, kinds),
    ):
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        assert all(part in str(caught.value) for part in parts)
