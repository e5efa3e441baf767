"""Checkpoints in, packages out: nothing lost, nothing guessed, bad input named."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain.lm.checkpoint import CheckpointError, load_checkpoint  # noqa: E402
from spiketrain.lm.export import export_model  # noqa: E402
from spiketrain.lm.families.egru import Config, Model  # noqa: E402
from spiketrain.lm.quantize import quantize_int8  # noqa: E402
from spiketrain.runtime.errors import PackageError  # noqa: E402
from spiketrain.runtime.package import read_package  # noqa: E402

DATA = Path(__file__).parent.parent / "data" / "egru"


def tiny(**fields):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "embedding_size": 16, "hidden_sizes": [24, 16]}
    return Model(Config(**sizes, initial_preactivation=1.0, **fields)).eval()


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("projection", [True, False])
def test_a_float32_package_holds_the_weights_themselves(tmp_path, tie, projection):
    model = tiny(tie_word_embeddings=tie, projection=projection)
    export_model(model, tmp_path / "p")
    package = read_package(tmp_path / "p")
    layer = model.layers[1]
    tensors = package.tensors
    assert np.array_equal(tensors["layers.1.input.weight"], layer.kernel.detach().numpy())
    assert np.array_equal(tensors["head.weight"], model.head.weight.detach().numpy().T)
    assert ("embedding.weight" in tensors) != tie
    assert package.config["spiketrain"]["fidelity"] == "exact"


def test_int8_codes_are_within_half_a_step(tmp_path):
    model = tiny()
    export_model(model, tmp_path / "p", weights="int8")
    tensors = read_package(tmp_path / "p").tensors
    for name, weight in (
        ("layers.0.recurrent", model.layers[0].recurrent_kernel),
        ("head", model.head.weight.t()),
    ):
        scale = tensors[f"{name}.scale"]
        error = np.abs(tensors[f"{name}.weight"] * scale - weight.detach().numpy())
        assert (error <= 0.5001 * scale).all()


def test_columns_of_zeros_and_odd_values_quantise():
    codes, scale = quantize_int8(torch.tensor([[0.0, 1.0, -3.0], [0.0, -0.5, 1.5]]))
    assert codes.tolist() == [[0, 127, -127], [0, -64, 64]]
    assert scale[0] == 1.0
    with pytest.raises(ValueError, match="not finite"):
        quantize_int8(torch.tensor([[float("nan")]]))


def test_an_existing_target_is_kept(tmp_path):
    export_model(tiny(), tmp_path / "p")
    before = read_package(tmp_path / "p").fingerprint
    with pytest.raises(PackageError):
        export_model(tiny(), tmp_path / "p", weights="int8")
    assert read_package(tmp_path / "p").fingerprint == before
    assert export_model(tiny(), tmp_path / "p", weights="int8", force=True) != before


def test_an_unknown_weight_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="weights"):
        export_model(tiny(), tmp_path / "p", weights="int3")


def test_hugging_face_directories_load(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    ids = torch.arange(6)[None]
    assert torch.equal(load_checkpoint(tmp_path)(ids).logits, model(ids).logits)


def test_official_thresholds_are_clamped(tmp_path):
    tensors = torch.load(DATA / "lm_tied_noproj.cpt", weights_only=True)
    tensors["rnns.1.thr"][:2] = torch.tensor([-0.5, 1.5])
    path = write(tmp_path, tensors)
    assert load_checkpoint(path).layers[1].threshold[:2].tolist() == [0.0, 1.0]


def write(folder, tensors, settings=None):
    torch.save(tensors, folder / "model.cpt")
    settings = (DATA / "lm_tied_noproj.config.yaml").read_text() if settings is None else settings
    (folder / "config.yaml").write_text(settings)
    return folder / "model.cpt"


def test_every_wrong_key_is_listed_at_once(tmp_path):
    tensors = torch.load(DATA / "lm_tied_noproj.cpt", weights_only=True)
    del tensors["rnns.0.bias"]
    tensors["rnns.7.bias"] = torch.zeros(3)
    tensors["rnns.2.kernel"] = torch.zeros(2, 2)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(write(tmp_path, tensors))
    for part in (
        "layers.0.bias is missing",
        "layers.7.bias is unknown",
        "layers.2.kernel is (2, 2)",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("rnn_type: lstm", "rnn_type"),
        ("rnn_type: egru\nlayers: 3", "hidden_dim"),
        ("[", "config.yaml"),
    ],
)
def test_bad_settings_are_named(tmp_path, settings, message):
    tensors = torch.load(DATA / "lm_tied_noproj.cpt", weights_only=True)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(write(tmp_path, tensors, settings))


def test_broken_and_hostile_files_are_refused(tmp_path):
    path = write(tmp_path, {})
    for content in (b"", b"not a checkpoint", pickled_call()):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model\.cpt"):
            load_checkpoint(path)
    for name in ("missing.cpt", "config.yaml"):
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path / name)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "config.json").write_text(json.dumps({"model_type": "../x"}))
    with pytest.raises(CheckpointError, match="model_type"):
        load_checkpoint(tmp_path / "d")


def pickled_call():
    """A pickle that would run code if it were trusted."""
    return b"cposix\nsystem\n(S'exit 1'\ntR."
