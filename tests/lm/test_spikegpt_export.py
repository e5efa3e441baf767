"""A SpikeGPT in torch and its package in the runtime: the same logits, spikes and membranes."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain import runtime  # noqa: E402
from spiketrain.lm.dial import set_dial  # noqa: E402
from spiketrain.lm.export import export_model  # noqa: E402
from spiketrain.lm.families.spikegpt import Config, Model  # noqa: E402
from spiketrain.runtime.errors import RequestError, SpiketrainError  # noqa: E402
from spiketrain.runtime.package import read_package  # noqa: E402

DATA = Path(__file__).parent.parent / "data" / "spikegpt"
VOCAB = 90
IDS = np.random.default_rng(3).integers(0, VOCAB, 64)
VARIANTS = [
    {},
    {"pre_ffn": True, "binary_embedding": False, "lif_tau": 1.6},
    {"neuron_position": "none"},
    {"neuron_position": "projections"},
    {"neuron_position": "projections", "pre_ffn": True, "threshold_scale": 1.4},
]


def tiny(**fields):
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 3}
    return Model(Config(**sizes, **fields)).eval()


def golden_model(name):
    tensors = torch.load(DATA / f"{name}.pth", weights_only=True)
    vocab, size = tensors["emb.weight"].shape
    model = Model(Config(vocab_size=vocab, hidden_size=size, num_hidden_layers=3)).eval()
    assert not model.load_state_dict(tensors, strict=False).unexpected_keys
    return model


@torch.no_grad()
def torch_logits(model):
    out = model(torch.from_numpy(IDS)[None])
    return out.logits[0].numpy(), out.state


@pytest.mark.parametrize("name", ["v77_l3", "v97_l3"])
def test_the_official_checkpoint_runs_as_the_official_training_code_did(tmp_path, name):
    export_model(golden_model(name), tmp_path / "p")
    with np.load(DATA / f"{name}.npz") as arrays:
        golden = dict(arrays)
    model = runtime.load_model(tmp_path / "p", threads=2)
    state = model.new_state()
    logits = model.forward(state, golden["tokens"][:-1])
    assert np.abs(logits - golden["logits"]).max() < 1e-4
    spikes = [x.events for x in model.activity().layers if not x.name.endswith(".value")]
    assert spikes == golden["spike_count"].ravel().tolist()
    arrays = state.arrays()
    for i in range(3):
        for half in range(2):
            found = arrays[f"membrane{half + 1}.{i}"]
            assert np.abs(found - golden["v_final"][i, half]).max() < 1e-4
        assert np.abs(arrays[f"att_shift.{i}"] - golden["final_shift_att"][i]).max() < 1e-4
        assert np.abs(arrays[f"ffn_shift.{i}"] - golden["final_shift_ffn"][i]).max() < 1e-4
        for part, vector in enumerate(("numerator", "denominator", "exponent")):
            wanted = golden["final_wkv_pqo"][i, part]
            assert np.abs(arrays[f"{vector}.{i}"] - wanted).max() < 1e-4
    twin = model.new_state()
    steps = [model.step([twin], [token])[0] for token in golden["tokens"][:-1]]
    assert np.array_equal(steps, logits)


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_float32_packages_give_the_logits_of_torch(tmp_path, fields):
    source = tiny(**fields)
    export_model(source, tmp_path / "p")
    model = runtime.load_model(tmp_path / "p")
    state = model.new_state()
    logits = model.forward(state, IDS)
    wanted, after = torch_logits(source)
    assert np.abs(logits - wanted).max() < 1e-4
    found = list(state.arrays().values())
    names = list(state.arrays())
    for array, name, vector in zip(found, names, flatten(after), strict=True):
        if not (fields.get("pre_ffn") and name in UNUSED):
            np.testing.assert_allclose(array, vector, atol=1e-4, err_msg=name)


UNUSED = ("numerator.0", "denominator.0", "exponent.0")


def flatten(state):
    return [part[0].numpy() for layer in state for part in layer]


@pytest.mark.parametrize("dial", [1.3, 2.0])
def test_a_dial_means_the_same_in_torch_and_in_the_runtime(tmp_path, dial):
    source = tiny(neuron_position="projections", threshold_scale=0.6)
    plain, _ = torch_logits(source)
    set_dial(source, dial)
    export_model(source, tmp_path / "p", max_dial=2.0)
    model = runtime.load_model(tmp_path / "p", dial=dial)
    logits = model.forward(model.new_state(), IDS)
    wanted, _ = torch_logits(source)
    assert np.abs(logits - wanted).max() < 1e-4
    assert np.abs(plain - wanted).max() > 1e-2


def test_a_dial_is_refused_out_of_range_and_where_nothing_counts():
    for dial in (0.5, 17.0, float("nan")):
        with pytest.raises(RequestError, match="dial must be from 1 to 16, got"):
            set_dial(tiny(neuron_position="projections"), dial)
    with pytest.raises(RequestError, match="dial must be 1"):
        set_dial(tiny(), 2.0)


@pytest.mark.parametrize("fields", VARIANTS[2:4], ids=str)
@pytest.mark.parametrize(
    ("weights", "head", "most"), [("int8", None, 0.1), ("int8", "int4", 0.2), ("int4", None, 0.4)]
)
def test_packages_of_integers_stay_near_torch(tmp_path, fields, weights, head, most):
    source = tiny(**fields)
    export_model(source, tmp_path / "p", weights=weights, head=head)
    formats = read_package(tmp_path / "p").config["spiketrain"]["weights"]
    assert formats == {"embedding": "int8", "body": weights, "head": head or weights}
    model = runtime.load_model(tmp_path / "p")
    logits = model.forward(model.new_state(), IDS)
    wanted, _ = torch_logits(source)
    assert np.abs(logits - wanted).mean() < most * wanted.std()


def test_what_the_runtime_does_not_compute_is_refused(tmp_path):
    with pytest.raises(SpiketrainError, match="rescale must be 0"):
        export_model(tiny(rescale=6), tmp_path / "p")
    with pytest.raises(SpiketrainError, match="weights must be one of"):
        export_model(tiny(), tmp_path / "p", weights="int3")
