"""An exported package reproduces its torch model: the promise `faithful` of the contract."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain import runtime  # noqa: E402
from spiketrain.lm.checkpoint import load_checkpoint  # noqa: E402
from spiketrain.lm.export import export_model  # noqa: E402
from spiketrain.lm.families.egru import Config, Model, fold_projection  # noqa: E402

DATA = Path(__file__).parent.parent / "data" / "egru"
VOCAB = 90
IDS = np.random.default_rng(3).integers(0, VOCAB, 64)


def tiny(**fields):
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB, "embedding_size": 32, "hidden_sizes": [48, 40, 32]}
    return Model(Config(**sizes, initial_preactivation=1.5, **fields)).eval()


@torch.no_grad()
def torch_logits(model):
    out = model(torch.from_numpy(IDS)[None])
    return out.logits[0].numpy(), out.firing_rates


def test_the_official_checkpoint_runs_as_the_official_code_did(tmp_path):
    export_model(load_checkpoint(DATA / "lm_tied_noproj.cpt"), tmp_path / "p")
    golden = np.load(DATA / "lm_tied_noproj.npz")
    model = runtime.load_model(tmp_path / "p")
    state = model.new_state()
    logits = model.forward(state, golden["tokens"][:-1])
    assert np.abs(logits - golden["logits"]).max() < 1e-4
    arrays = state.arrays()
    for layer in range(3):
        assert np.abs(arrays[f"cell.{layer}"] - golden[f"cell_l{layer}"][-1]).max() < 1e-5
        assert np.abs(arrays[f"output.{layer}"] - golden[f"y_l{layer}"][-1]).max() < 1e-5


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("projection", [True, False])
@pytest.mark.parametrize("zoneout", [0.0, 0.2])
def test_float32_packages_give_the_logits_of_torch(tmp_path, tie, projection, zoneout):
    source = tiny(tie_word_embeddings=tie, projection=projection, zoneout=zoneout)
    export_model(source, tmp_path / "p")
    model = runtime.load_model(tmp_path / "p")
    logits = model.forward(model.new_state(), IDS)
    wanted, rates = torch_logits(source)
    assert np.abs(logits - wanted).max() < 1e-4
    found = [layer.firing_rate for layer in model.activity().layers[: len(rates)]]
    assert found == pytest.approx([float(rate) for rate in rates], abs=1e-6)
    assert min(found) > 0.05


@pytest.mark.parametrize("tie", [True, False])
def test_a_projection_folded_into_the_head_changes_no_logit_and_reads_events(tmp_path, tie):
    source = tiny(tie_word_embeddings=tie, projection=True)
    folded = fold_projection(source)
    wanted, _ = torch_logits(source)
    assert np.abs(torch_logits(folded)[0] - wanted).max() < 1e-5
    export_model(folded, tmp_path / "p")
    model = runtime.load_model(tmp_path / "p")
    assert np.abs(model.forward(model.new_state(), IDS) - wanted).max() < 1e-4
    assert [part.name for part in model.activity().readout] == ["head"]
    assert model.activity().readout[0].silent_rows > 0
    with pytest.raises(ValueError, match="projection must be true"):
        fold_projection(folded)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("projection", [True, False])
def test_int8_packages_stay_near_torch(tmp_path, tie, projection):
    source = tiny(tie_word_embeddings=tie, projection=projection)
    export_model(source, tmp_path / "p", weights="int8")
    model = runtime.load_model(tmp_path / "p")
    logits = model.forward(model.new_state(), IDS)
    wanted, _ = torch_logits(source)
    assert np.abs(logits - wanted).mean() < 0.05 * wanted.std()
