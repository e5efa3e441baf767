"""The SpikingBrain model as a Hugging Face citizen, in all its variants, and its scans."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hypothesis import given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from spiketrain.lm.families.spikingbrain import Config, Model, codes, neurons  # noqa: E402
from spiketrain.lm.families.spikingbrain.linear_attention import chunked, recurrent  # noqa: E402
from spiketrain.lm.families.spikingbrain.window_attention import attend, rotate  # noqa: E402
from spiketrain.runtime.families.spikingbrain.rotary import frequencies  # noqa: E402

VARIANTS = {
    "float": {},
    "all linear": {"attn_layers": [], "gate": "merged"},
    "all windows": {"attn_layers": [0, 1], "window_keys": 3, "num_sink_tokens": 2},
    "spikes": {"spikes": True, "dead_zone": 1.2, "train_spikes": True},
    "W8ASpike": {
        "spikes": True,
        "attention_spikes": True,
        "gate": "merged",
        "quant_weight_group_size": 8,
        "down_proj": "published",
    },
    "76B": {
        "parallel": True,
        "full_attn_layers": [1],
        "max_position_embeddings": 32,
        "gate": "tied",
        "feature_map": "sigmoid",
        "num_sink_tokens": 3,
        "num_experts": 3,
        "dense_layers": [0],
        "moe_intermediate_size": 24,
        "spikes": True,
    },
    "Qwen3": {"head_dim": 6, "qk_norm": True, "tie_word_embeddings": True},
}
IDS = torch.arange(24).reshape(2, 12) * 7 % 50


def tiny(variant="float", **fields):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 32,
        "sliding_window": 4,
        "initializer_range": 0.2,
    }
    return Model(Config(**(sizes | VARIANTS[variant] | fields))).eval()


@pytest.fixture(params=VARIANTS)
def model(request):
    return tiny(request.param).double()  # in float32 a count next to a tie may flip


def test_one_pass_equals_any_pieces(model):
    with torch.no_grad():
        whole = model(IDS)
        for sizes in ([1] * 12, [5, 7], [1, 8, 3]):
            state, parts = None, []
            for piece in IDS.split(sizes, 1):
                out = model(piece, state=state)
                state = out.state
                parts.append(out.logits)
            torch.testing.assert_close(torch.cat(parts, 1), whole.logits, atol=1e-9, rtol=0)
            for found, wanted in zip(state, whole.state, strict=True):
                for a, b in zip(found, wanted, strict=True):
                    torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


def test_lanes_with_different_pasts_go_on_as_they_would_alone(model):
    with torch.no_grad():
        _, long, _ = model.features(IDS[:1])
        _, short, _ = model.features(IDS[1:, :3])
        both = tuple(
            tuple(torch.cat(parts) for parts in zip(*layers, strict=True))
            for layers in zip(long, short, strict=True)
        )
        found = model(IDS[:, :5], state=both).logits
        alone = [model(IDS[i : i + 1, :5], state=s).logits for i, s in enumerate((long, short))]
    torch.testing.assert_close(found, torch.cat(alone), atol=1e-9, rtol=0)


def test_generate_carries_the_state(model):
    got = model.generate(IDS, max_new_tokens=5, do_sample=False, eos_token_id=None)
    want = IDS
    for _ in range(5):
        want = torch.cat([want, model(want).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(got, want)


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_and_loaded_models_are_equal(variant, tmp_path):
    model = tiny(variant)
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    with torch.no_grad():
        found, wanted = again.double()(IDS).logits, model.double()(IDS).logits
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)


def test_events_have_the_sizes_that_are_promised(model):
    _, _, events = model.features(IDS)
    assert tuple(read.shape for read in events) == tuple((12, 2, n) for n in model.event_sizes)
    assert bool(events) == model.config.spikes


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_trained_parameter_has_a_gradient(variant):
    model = tiny(variant).train()
    costs = [torch.full((n,), 1e-3) for n in model.event_sizes]
    features, _, _ = model.features(IDS, None, costs)
    model.mean_nll(features, IDS.roll(-1, 1)).backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or ".experts." in name:  # of these only the chosen have
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0 or ".k_proj.bias" in name, name


def test_float_gradients_are_those_of_differences():
    model = tiny("float", compute_dtype="float64").double()
    weight = model.model.layers[0].attn.gk_proj[0].weight
    with torch.no_grad():
        weight.mul_(20.0)

    def loss():
        features, _, _ = model.features(IDS)
        return torch.nn.functional.cross_entropy(
            model.logits(features).flatten(0, 1), IDS.t().flatten()
        )

    loss().backward()
    row, step = weight.grad[3].clone(), 1e-5
    with torch.no_grad():
        for i in range(4):
            weight[3, i] += step
            up = loss()
            weight[3, i] -= 2 * step
            down = loss()
            weight[3, i] += step
            assert row[i].item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-4)


def test_an_event_price_enters_the_gradient_of_what_is_near_its_first_spike():
    x = torch.tensor([[0.2, 0.6, 1.0, 9.0]], requires_grad=True)
    read = neurons.spiked(x, 2.7, 0.0, torch.full((4,), 0.5))  # V = 1
    read.sum().backward()
    torch.testing.assert_close(read, torch.tensor([[0.0, 1.0, 1.0, 9.0]]))
    # slope of |z| / 0.5 is 2, times a triangle around |z| = 0.5
    wanted = 1.0 + 0.5 * 2.0 * torch.tensor([[0.4, 0.8, 0.0, 0.0]])
    torch.testing.assert_close(x.grad, wanted)


def test_the_gradient_of_k_is_that_of_rounding_alone():
    x = torch.tensor([[0.3, -1.2, 2.4, 4.1]])
    k = torch.tensor([2.0], requires_grad=True)
    neurons.spiked(x, k).sum().backward()
    mean = x.abs().mean()
    v = mean / 2.0
    gap = torch.round(x / v) - x / v
    torch.testing.assert_close(k.grad[0], gap.sum() * -mean / 4.0)


def test_a_count_at_a_tie_goes_to_the_even_side_and_a_dead_zone_is_open():
    x = torch.tensor([[0.5, -1.5, 2.5, 3.5]])  # mean 2, V = 1
    counts, threshold = neurons.counts_and_threshold(x, 2.0)
    assert threshold.item() == 1.0
    assert counts.tolist() == [[0.0, -2.0, 2.0, 4.0]]
    assert neurons.counts_and_threshold(x, 2.0, 2.5)[0].tolist() == [[0.0, 0.0, 2.0, 4.0]]


def test_a_silent_token_gives_no_spikes():
    assert not neurons.spiked(torch.zeros(2, 8), 3.0).any()


@seed(1)
@settings(max_examples=40)
@given(st.lists(st.integers(-300, 300), min_size=1, max_size=9), st.integers(1, 2))
def test_trains_are_exact_expansions_of_their_counts(values, axes):
    counts = torch.tensor(values, dtype=torch.float32).view(-1, *[1] * (axes - 1))
    assert torch.equal(codes.from_train(codes.ternary(counts)), counts)
    assert torch.equal(codes.from_train(codes.binary(counts.abs())), counts.abs())
    assert torch.equal(codes.from_bits(codes.bitwise(counts)), counts)
    assert torch.equal(codes.from_bits(codes.twos_complement(counts), twos=True), counts)
    for train in (codes.ternary(counts), codes.bitwise(counts)):
        assert set(train.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert set(codes.twos_complement(counts).unique().tolist()) <= {0.0, 1.0}


def test_binary_trains_have_no_negative_counts():
    with pytest.raises(ValueError, match="at least 0, got -1"):
        codes.binary(torch.tensor([2.0, -1.0]))


@seed(2)
@settings(max_examples=25)
@given(
    st.integers(1, 70),
    st.integers(1, 33),
    st.sampled_from([0.05, 2.0, 60.0]),
    st.integers(0, 2**31),
)
def test_the_chunked_scan_is_the_recurrent_one_whatever_the_decay(steps, size, strength, number):
    draw = torch.Generator().manual_seed(number)
    q = torch.randn(2, steps, 2, 3, 4, dtype=torch.float64, generator=draw)
    k, v, g = torch.randn(3, 2, steps, 2, 4, dtype=torch.float64, generator=draw)
    g = -strength * g.abs()
    state = torch.randn(2, 2, 4, 4, dtype=torch.float64, generator=draw)
    wanted, last = recurrent(q, k, v, g, state)
    found, after = chunked(q, k, v, g, state, size)
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(after, last, atol=1e-9, rtol=1e-9)


@seed(3)
@settings(max_examples=25)
@given(st.integers(1, 300), st.integers(0, 6), st.integers(1, 9), st.integers(0, 2**31))
def test_window_attention_is_softmax_over_the_visible_keys(steps, before, visible, number):
    draw = torch.Generator().manual_seed(number)
    q = torch.randn(1, steps, 4, 6, generator=draw)
    k, v = torch.randn(2, 1, 6 + steps, 2, 6, generator=draw)
    found = attend(q, k, v, torch.tensor([before]), visible)
    for t in {0, steps // 2, steps - 1}:
        own = 6 + t
        seen = slice(max(6 - before, own - visible + 1), own + 1)
        for head in range(4):
            scores = k[0, seen, head // 2] @ q[0, t, head] / 6**0.5
            wanted = torch.softmax(scores, 0) @ v[0, seen, head // 2]
            torch.testing.assert_close(found[0, t, head], wanted, atol=1e-5, rtol=0)


def test_rotation_depends_on_distance_alone():
    x, y = torch.randn(
        2, 1, 1, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    rates = torch.from_numpy(frequencies(1e4, 4))
    products = [
        (rotate(x, torch.tensor([[p + 5]]), rates) * rotate(y, torch.tensor([[p]]), rates)).sum()
        for p in (0, 17, 100_000)
    ]
    torch.testing.assert_close(products[1:], products[:1] * 2)


def test_a_routed_token_passes_its_likeliest_expert_and_the_shared_one():
    model = tiny("76B", spikes=False)
    experts = model.model.layers[1].mlp
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found = experts(x, [], None)
        shares = torch.softmax(experts.router(x), -1)
        for b, t in ((0, 0), (1, 4)):
            share, best = shares[b, t].max(0)
            one, common = experts.experts[int(best)], experts.shared[0]
            token = x[b, t]
            wanted = share * one.down_proj(one.inner(token)) + common.down_proj(common.inner(token))
            torch.testing.assert_close(found[b, t], wanted)
    assert shares.argmax(-1).unique().numel() > 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_key_value_heads": 3}, "multiple of num_key_value_heads 3, got 4"),
        ({"attn_layers": [2]}, r"attn_layers must be different layers in \[0, 2\), got \[2\]"),
        ({"full_attn_layers": [0]}, "full_attn_layers must be among attn_layers"),
        ({"gate": "tied"}, "feature_map must be 'sigmoid' with a tied gate"),
        ({"down_proj": "both"}, "down_proj must be one of"),
        ({"quant_weight_group_size": 7}, "quant_weight_group_size must divide the inputs 16"),
        ({"spike_k": 0.0}, "spike_k must be finite and above 0"),
        ({"head_dim": 5}, "head_dim must be even"),
    ],
)
def test_wrong_configs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(**fields)
