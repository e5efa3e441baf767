import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain.lm.conversion.gru import egru_from_gru  # noqa: E402
from spiketrain.lm.conversion.thresholds import calibrate_thresholds  # noqa: E402

V, E, H, DEPTH = 31, 12, 20, 2


class Gru(torch.nn.Module):
    """The word-language-model example of PyTorch, its GRU variant."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.encoder = torch.nn.Embedding(V, E)
        self.rnn = torch.nn.GRU(E, H, DEPTH)
        self.decoder = torch.nn.Linear(H, V)

    def forward(self, ids):
        return self.decoder(self.rnn(self.encoder(ids.t()))[0]).transpose(0, 1)


@pytest.fixture
def ids():
    return torch.randint(0, V, (3, 50), generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def test_paired_units_give_the_logits_of_the_gru(ids):
    gru = Gru()
    found = egru_from_gru(gru.state_dict())(ids)
    torch.testing.assert_close(found.logits, gru(ids), atol=1e-5, rtol=0)
    assert [round(float(rate), 6) for rate in found.firing_rates] == [0.5, 0.5]


@torch.no_grad()
def test_single_units_keep_what_is_positive(ids):
    """In one step from zero the first layer's y is max(h, 0)."""
    gru = Gru()
    _, _, events = egru_from_gru(gru.state_dict(), "single").features(ids[:, :1])
    below = torch.nn.GRU(E, H)
    below.load_state_dict({k: v for k, v in gru.rnn.state_dict().items() if k.endswith("l0")})
    h, _ = below(gru.encoder(ids[:, :1].t()))
    torch.testing.assert_close(events[0], h.clamp_min(0.0), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("low", "high"), [(0.25, 0.3), (0.08, 0.1)])
def test_calibrated_layers_fire_in_the_stated_range(ids, low, high):
    model = egru_from_gru(Gru().state_dict())
    rates = calibrate_thresholds(model, ids, low, high)
    assert all(low <= rate <= high for rate in rates)
    _, _, events = model.features(ids)
    assert [(y[16:] != 0).float().mean().item() for y in events] == rates


def test_a_layer_quieter_than_asked_keeps_threshold_zero(ids):
    model = egru_from_gru(Gru().state_dict())
    assert calibrate_thresholds(model, ids, 0.6, 0.7) == pytest.approx([0.5, 0.5])
    assert all(bool((layer.threshold == 0).all()) for layer in model.layers)


def test_every_key_that_does_not_fit_is_listed():
    tensors = dict(Gru().state_dict())
    del tensors["rnn.bias_hh_l1"]
    tensors["decoder.bias"] = torch.zeros(3)
    tensors["extra"] = torch.zeros(1)
    with pytest.raises(ValueError, match="keys do not fit") as caught:
        egru_from_gru(tensors)
    for part in ("rnn.bias_hh_l1 is missing", "extra is unknown", "decoder.bias is (3,)"):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match=r"encoder\.weight must be there"):
        egru_from_gru({})


def test_another_variant_of_an_egru_is_refused():
    with pytest.raises(ValueError, match=r"variant must be one of .*, got 'double'"):
        egru_from_gru(Gru().state_dict(), "double")


@pytest.mark.parametrize("bounds", [(0.0, 0.1), (0.3, 0.2), (0.2, 1.0)])
def test_bounds_out_of_order_are_refused(ids, bounds):
    with pytest.raises(ValueError, match="firing rates must be"):
        calibrate_thresholds(egru_from_gru(Gru().state_dict()), ids, *bounds)
