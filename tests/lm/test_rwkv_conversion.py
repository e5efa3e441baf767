import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain.lm.conversion.rwkv import calibrate_neurons, spikegpt_from_rwkv  # noqa: E402
from spiketrain.lm.families.spikegpt import Config, Model  # noqa: E402

V, C, DEPTH = 31, 16, 2


def rwkv(**fields):
    """A tiny RWKV-4 whose vectors are no constants."""
    torch.manual_seed(6)
    sizes = {"vocab_size": V, "hidden_size": C, "num_hidden_layers": DEPTH}
    model = Model(Config(**sizes, **({"neuron_position": "none"} | fields)))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "ln" in name or "time_mix" in name:
                value.add_(0.1 * torch.randn(value.shape))
    return model.eval()


@pytest.fixture
def ids():
    return torch.randint(0, V, (3, 60), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("pre_ffn", [False, True])
def test_a_copy_with_lif_units_keeps_every_weight(pre_ffn):
    teacher = rwkv(pre_ffn=pre_ffn, intermediate_size=24, layer_norm_eps=1e-4, carry="zero")
    copy = spikegpt_from_rwkv(teacher)
    own, theirs = copy.state_dict(), teacher.state_dict()
    assert all(torch.equal(own[name], value) for name, value in theirs.items())
    assert all(".lif" in name and bool((own[name] == 1).all()) for name in own.keys() - theirs)
    for name in ("pre_ffn", "intermediate_size", "layer_norm_eps", "carry"):
        assert getattr(copy.config, name) == getattr(teacher.config, name)
    assert copy.config.neuron_position == "residual"


@pytest.mark.parametrize("pre_ffn", [False, True])
def test_a_spike_driven_copy_keeps_every_weight_but_shares_token_shifts(pre_ffn):
    teacher = rwkv(pre_ffn=pre_ffn)
    own, theirs = spikegpt_from_rwkv(teacher, "projections").state_dict(), teacher.state_dict()
    kept = [name for name in theirs if ".time_mix" not in name]
    assert all(torch.equal(own[name], theirs[name]) for name in kept)
    first = "blocks.1.att.time_mix"
    mean = sum(theirs[f"{first}_{part}"] for part in "kvr") / 3
    torch.testing.assert_close(own[first], mean)
    mean = (theirs["blocks.0.ffn.time_mix_k"] + theirs["blocks.0.ffn.time_mix_r"]) / 2
    torch.testing.assert_close(own["blocks.0.ffn.time_mix"], mean)


@torch.no_grad()
def test_spike_counts_of_a_low_threshold_give_nearly_the_logits_of_the_teacher(ids):
    """Where all projections of a mix share a token shift already."""
    teacher = rwkv()
    for block in teacher.blocks:
        for mix in (block.att, block.ffn):
            for name, value in mix.named_parameters():
                if name.startswith("time_mix"):
                    value.copy_(mix.time_mix_k)
    copy = spikegpt_from_rwkv(teacher, "projections")
    for name, value in copy.named_parameters():
        if name.endswith("threshold_scale"):
            value.fill_(1e-3)
    torch.testing.assert_close(copy(ids).logits, teacher(ids).logits, atol=0.02, rtol=0)


@pytest.mark.parametrize("binary", [False, True])
def test_the_embedding_of_a_copy_is_read_as_the_teacher_reads_it(binary):
    copy = spikegpt_from_rwkv(rwkv(binary_embedding=binary))
    assert copy.config.binary_embedding is binary


@pytest.mark.parametrize("pre_ffn", [False, True])
@pytest.mark.parametrize("variant", ["residual", "projections"])
@pytest.mark.parametrize(("low", "high"), [(0.24, 0.3), (0.12, 0.15)])
def test_calibrated_neurons_fire_in_the_stated_range(ids, variant, low, high, pre_ffn):
    copy = spikegpt_from_rwkv(rwkv(pre_ffn=pre_ffn), variant)
    rates = calibrate_neurons(copy, ids, low, high)
    assert len(rates) == len(copy.event_sizes)
    assert all(low <= rate <= high for rate in rates)
    _, _, events = copy.features(ids)
    assert [(y[16:] != 0).float().mean().item() for y in events] == rates


def test_calibration_leaves_thresholds_of_lif_units_alone(ids):
    copy = spikegpt_from_rwkv(rwkv(lif_threshold=0.5))
    calibrate_neurons(copy, ids, 0.2, 0.25)
    for block in copy.blocks:
        for unit in (block.lif1, block.lif2):
            assert bool((unit.threshold == 0.5).all())
            assert len(unit.scale.unique()) == 1


def test_a_layer_of_mostly_zeros_keeps_what_it_has(ids):
    copy = spikegpt_from_rwkv(rwkv(), "projections")
    rates = calibrate_neurons(copy, ids, 0.7, 0.8)
    assert all(0.3 < rates[i] < 0.6 for i in (3, 7))  # squared ReLU
    assert copy.blocks[0].ffn.value_spikes.threshold_scale.item() == pytest.approx(0.05)
    assert 0.7 <= rates[0] <= 0.8


@pytest.mark.parametrize(
    ("fields", "variant", "message"),
    [
        ({"neuron_position": "residual"}, "residual", "neuron_position must be 'none'"),
        ({"rescale": 6}, "residual", "rescale must be 0, got 6"),
        ({}, "none", "variant must be one of"),
    ],
)
def test_what_is_no_rwkv_is_refused(fields, variant, message):
    with pytest.raises(ValueError, match=message):
        spikegpt_from_rwkv(rwkv(**fields), variant)


@pytest.mark.parametrize("bounds", [(0.0, 0.1), (0.3, 0.2), (0.2, 1.0)])
def test_bounds_out_of_order_are_refused(ids, bounds):
    with pytest.raises(ValueError, match="firing rates must be"):
        calibrate_neurons(spikegpt_from_rwkv(rwkv()), ids, *bounds)


def test_a_text_of_too_few_steps_is_refused(ids):
    with pytest.raises(ValueError, match="more than 16 steps, got 16"):
        calibrate_neurons(spikegpt_from_rwkv(rwkv()), ids[:, :16], 0.1, 0.2)
