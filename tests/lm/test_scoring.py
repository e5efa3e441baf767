"""The torch model that evaluation reads: whose results a fingerprint stands for."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain.lm.checkpoint import load_checkpoint  # noqa: E402
from spiketrain.lm.families.egru import Config, Model  # noqa: E402
from spiketrain.lm.scoring import TorchModel  # noqa: E402


def model(**fields):
    torch.manual_seed(0)
    return Model(Config(vocab_size=50, embedding_size=16, hidden_sizes=[24, 16], **fields))


def test_a_fingerprint_is_of_weights_and_config(tmp_path):
    first = TorchModel(model()).fingerprint
    assert TorchModel(model(zoneout=0.3)).fingerprint != first  # which cells are scaled by
    other = model()
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1.0
    assert TorchModel(other).fingerprint != first


def test_a_fingerprint_outlives_saving_and_another_precision_of_computing(tmp_path):
    first = TorchModel(model()).fingerprint
    model().save_pretrained(tmp_path / "hf")
    assert TorchModel(load_checkpoint(tmp_path / "hf")).fingerprint == first
    assert TorchModel(model(compute_dtype="bfloat16")).fingerprint == first
