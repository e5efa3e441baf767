"""The SpikeGPT model as a Hugging Face citizen, in all its variants."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from spiketrain.lm.families.spikegpt import Config, Model  # noqa: E402
from spiketrain.lm.families.spikegpt.neurons import Spikes  # noqa: E402

VARIANTS = {
    "published": {},
    "ffnPre": {"pre_ffn": True, "rescale": 1},
    "trained neurons": {"train_neurons": True, "lif_tau": 3.0, "lif_threshold": 0.5},
    "rwkv": {"neuron_position": "none"},
    "projections": {"neuron_position": "projections", "pre_ffn": True},
}
IDS = torch.arange(18).reshape(2, 9) * 7 % 50


def tiny(variant="published", **fields):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2}
    model = Model(Config(**(sizes | VARIANTS[variant] | fields))).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("att.output.weight", "ffn.value.weight", "ffnPre.value.weight")):
                weight *= 30.0  # so that units fire
    return model


@pytest.fixture(params=VARIANTS)
def model(request):
    return tiny(request.param)


def test_one_pass_equals_token_by_token(model):
    with torch.no_grad():
        whole, state, parts = model(IDS), None, []
        for t in range(IDS.shape[1]):
            out = model(IDS[:, t : t + 1], state=state)
            state = out.state
            parts.append(out.logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole.logits, atol=1e-6, rtol=0)
    for found, wanted in zip(state, whole.state, strict=True):
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_generate_carries_the_state(model):
    got = model.generate(IDS, max_new_tokens=5, do_sample=False)
    want = IDS
    for _ in range(5):
        want = torch.cat([want, model(want).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(got, want)


def test_saved_and_loaded_models_are_equal(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert isinstance(again, Model)
    assert again.config.neuron_position == model.config.neuron_position
    assert torch.equal(again(IDS).logits, model(IDS).logits)


def test_loss_matches_the_fused_one(model):
    out = model(IDS, labels=IDS)
    features, _, _ = model.features(IDS[:, :-1])
    torch.testing.assert_close(out.loss, model.mean_nll(features, IDS[:, 1:]), atol=1e-5, rtol=0)


def test_events_are_as_wide_as_said_and_fire_sometimes(model):
    _, _, events = model.features(IDS)
    assert tuple(y.shape[-1] for y in events) == model.event_sizes
    assert all(y.shape[:2] == (9, 2) for y in events)
    assert all(0.0 < (y != 0).float().mean() < 1.0 for y in events)
    assert len(model(IDS).firing_rates) == len(events)


def test_every_trained_parameter_gets_a_gradient(model):
    model.train()
    features, _, _ = model.features(IDS[:, :-1])
    model.mean_nll(features, IDS[:, 1:]).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_a_price_makes_thresholds_rise_and_inputs_fall():
    grads = []
    for price in (0.0, 1.0):
        model = tiny("projections").train()
        costs = [torch.full((size,), price) for size in model.event_sizes]
        features, _, _ = model.features(IDS[:, :-1], None, costs)
        model.mean_nll(features, IDS[:, 1:]).backward()
        grads.append({k: p.grad for k, p in model.named_parameters() if "threshold" in k})
    assert len(grads[0]) == 9
    for name, free in grads[0].items():
        assert grads[1][name] < free, name


def test_chunks_start_as_carry_says():
    state = tiny()(IDS).state
    assert torch.equal(tiny().carried(state)[1][2], state[1][2])
    published = tiny(carry="zero")
    for found, wanted in zip(published.carried(state), published.initial_state(2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_without_neurons_rescaling_changes_nothing_but_rounding():
    plain, scaled = tiny("rwkv"), tiny("rwkv", rescale=1, layer_norm_eps=1e-12)
    torch.testing.assert_close(plain(IDS).logits, scaled(IDS).logits, atol=1e-4, rtol=0)
    spiking, halved = tiny(), tiny(rescale=1)
    assert not torch.allclose(spiking(IDS).logits, halved(IDS).logits, atol=1e-2)


def test_rwkv_starts_with_an_untouched_residual():
    model = tiny("rwkv", initialization="rwkv")
    weight = model.blocks[0]
    assert not weight.att.output.weight.any()
    assert not weight.ffn.value.weight.any()
    square = weight.att.value.weight.detach()
    torch.testing.assert_close(square @ square.T, torch.eye(16), atol=1e-5, rtol=0)
    assert model.emb.weight.abs().max() <= 1e-4


def test_the_published_start_is_as_the_paper_says():
    att = tiny().blocks[1].att
    torch.testing.assert_close(att.time_decay[[0, -1]], torch.tensor([-5.0, 3.0]))
    first = torch.tensor([0.3, 0.3, 0.3]).log() + torch.tensor([0.0, 0.5, -0.5])
    torch.testing.assert_close(att.time_first[:3], first)
    assert att.time_mix_v.shape == (1, 1, 16)
    torch.testing.assert_close(att.time_mix_v[0, 0, 4], torch.tensor((4 / 16) ** 0.5 + 0.3))


def test_dropout_acts_in_training_only():
    model = tiny(dropout=0.4)
    assert torch.equal(model(IDS).logits, model(IDS).logits)
    model.train()
    assert not torch.equal(model(IDS).logits, model(IDS).logits)


def test_bfloat16_products_stay_near_float32(model):
    wanted = model(IDS).logits
    model.config.compute_dtype = "bfloat16"
    found = model(IDS)
    assert found.logits.dtype == torch.float32
    assert all(part.dtype == torch.float32 for layer in found.state for part in layer)
    assert (found.logits - wanted).abs().mean() < 0.5 * wanted.std()


def test_padding_is_refused(model):
    with pytest.raises(ValueError, match="attention_mask"):
        model(IDS, attention_mask=torch.zeros_like(IDS))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 0}, "hidden_size"),
        ({"neuron_position": "embedding"}, "neuron_position"),
        ({"rescale": -1}, "rescale"),
        ({"lif_tau": 0.5}, "lif_tau"),
        ({"lif_threshold": 0.0}, "lif_threshold"),
        ({"dropout": 1.0}, "dropout"),
        ({"carry": "output"}, "carry"),
        ({"initialization": "none"}, "initialization"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Config(**fields)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_runs_where_the_kernels_do_not_is_the_same_model(variant, monkeypatch):
    sides = []
    for plain in (False, True):
        if plain:  # as on a GPU
            for kernel in ("lif", "relu2", "spike_counts", "token_mix", "wkv"):
                monkeypatch.setattr(f"spiketrain.lm.kernels.{kernel}.by_c", lambda like: False)
        model = tiny(variant).double().train()
        costs = [torch.full((size,), 1e-3, dtype=torch.float64) for size in model.event_sizes]
        features, state, events = model.features(IDS[:, :5], None, costs)
        features, state, events = model.features(IDS[:, 5:-1], model.carried(state), costs)
        model.mean_nll(features, IDS[:, 6:]).backward()
        grads = [p.grad for p in model.parameters() if p.requires_grad]
        sides.append([features.detach(), *(x for layer in state for x in layer), *events, *grads])
    for found, wanted in zip(*sides, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize(("width", "least"), [(16, 0.05), (6400, 0.2)])
def test_training_keeps_thresholds_where_counts_fit_their_type(width, least):
    spikes = Spikes(Config(hidden_size=16, threshold_scale=1e-3)).train()
    spikes.reset_parameters()
    counts = spikes(torch.eye(width)[:1].view(1, 1, width), None) / (least / width)
    assert spikes.threshold_scale.item() == pytest.approx(least)
    assert 0 < counts.max().item() <= 32767
