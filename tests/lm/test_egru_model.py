"""The EGRU model as a Hugging Face citizen, and its fused training kernels."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from spiketrain.lm.families.egru import Config, Model  # noqa: E402
from spiketrain.lm.kernels import cross_entropy  # noqa: E402
from spiketrain.lm.kernels.cross_entropy import linear_cross_entropy  # noqa: E402
from spiketrain.lm.kernels.egru import scan, scan_reference  # noqa: E402
from spiketrain.lm.spikes import PUBLISHED_FLOOR, graded, heaviside  # noqa: E402


def tiny(**fields):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "embedding_size": 16, "hidden_sizes": [24, 16]}
    return Model(Config(**sizes, initial_preactivation=1.0, **fields)).eval()


IDS = torch.arange(18).reshape(2, 9) * 7 % 50


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("projection", [True, False])
def test_one_pass_equals_token_by_token(tie, projection):
    model = tiny(tie_word_embeddings=tie, projection=projection)
    with torch.no_grad():
        whole, state, parts = model(IDS).logits, None, []
        for t in range(IDS.shape[1]):
            out = model(IDS[:, t : t + 1], state=state)
            state = out.state
            parts.append(out.logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-6, rtol=0)


def test_generate_carries_the_state():
    model = tiny()
    got = model.generate(IDS, max_new_tokens=5, do_sample=False)
    want = IDS
    for _ in range(5):
        want = torch.cat([want, model(want).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(got, want)


@pytest.mark.parametrize("tie", [True, False])
def test_saved_and_loaded_models_are_equal(tmp_path, tie):
    model = tiny(tie_word_embeddings=tie)
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert isinstance(again, Model)
    assert (again.head.weight is again.embeddings.weight) == tie
    assert torch.equal(again(IDS).logits, model(IDS).logits)


def test_loss_matches_the_fused_one():
    model = tiny()
    out = model(IDS, labels=IDS)
    features, _, _ = model.features(IDS[:, :-1])
    torch.testing.assert_close(out.loss, model.mean_nll(features, IDS[:, 1:]), atol=1e-5, rtol=0)


def test_padding_is_refused():
    with pytest.raises(ValueError, match="attention_mask"):
        tiny()(IDS, attention_mask=torch.zeros_like(IDS))


def test_dropouts_act_in_training_only():
    names = ("words", "embedding", "forward", "connect", "decoder")
    for shared in ("batch", "time"):
        model = tiny(**{f"dropout_{name}": 0.4 for name in names}, dropout_shared=shared)
        assert torch.equal(model(IDS).logits, model(IDS).logits)
        model.train()
        assert not torch.equal(model(IDS).logits, model(IDS).logits)


def test_variational_masks_are_shared_over_their_axis():
    x = torch.ones(5, 3, 400)
    for shared, axis in (("batch", 1), ("time", 0)):
        mask = tiny(dropout_shared=shared).train()._locked_dropout(x, 0.5)
        assert torch.equal(mask, mask.narrow(axis, 0, 1).expand_as(mask))
        assert set(mask.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"hidden_sizes": [24, 17]},
            "hidden_sizes must end with embedding_size 16 in a tied model .*, got 17",
        ),
        ({"zoneout": 1.0}, "zoneout"),
        ({"dropout_words": -0.1}, "dropout_words"),
        ({"carry": "nothing"}, "carry"),
        ({"vocab_size": 0}, "vocab_size"),
    ],
)
def test_bad_fields_are_named(fields, message):
    sizes = {"vocab_size": 50, "embedding_size": 16, "hidden_sizes": [24, 16]}
    with pytest.raises(ValueError, match=message):
        Config(**(sizes | fields))


def test_nothing_fires_at_the_threshold():
    v = torch.tensor([-1e-7, 0.0, 1e-7], requires_grad=True)
    o = heaviside(v, damp=0.5, support=2.0)
    assert o.tolist() == [0.0, 0.0, 1.0]
    o.sum().backward()
    torch.testing.assert_close(v.grad, torch.full((3,), 0.5))


def test_an_event_is_worth_its_cell_or_the_floor_to_the_loss():
    cells = torch.tensor([-0.5, 0.05, 0.5])
    o = torch.tensor([0.0, 0.0, 1.0], requires_grad=True)
    for floor, worth in ((PUBLISHED_FLOOR, [-0.5, 0.05, 0.5]), (0.1, [0.1, 0.1, 0.5])):
        (worth_found,) = torch.autograd.grad(graded(o, cells, floor).sum(), o)
        torch.testing.assert_close(worth_found, torch.tensor(worth))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 33), (4, 2, 64)])
@pytest.mark.parametrize("floor", [PUBLISHED_FLOOR, 0.0, 0.2])
def test_the_fused_scan_has_the_gradients_of_the_plain_loop(dtype, shape, floor):
    T, B, H = shape
    torch.manual_seed(1)
    draws = [torch.randn(T, B, 3 * H), torch.rand(B, H), 0.1 * torch.randn(B, H)]
    draws += [0.3 * torch.randn(H, 3 * H), 0.1 * torch.randn(3 * H), 0.1 * torch.rand(H)]
    cost = 0.01 * torch.rand(H).double()
    weight, weight_c = torch.randn(T, B, H).double(), torch.randn(B, H).double()
    plain = [x.double().requires_grad_() for x in draws]
    y, c = scan_reference(*plain, damp=0.8, support=0.9, floor=floor)
    # the price of events enters through the surrogate alone
    v = _reach(plain, floor)
    loss = (y * weight).sum() + (c * weight_c).sum() + (cost * heaviside(v, 0.8, 0.9)).sum()
    loss.backward()
    real = torch.float64 if dtype == torch.float64 else torch.float32
    fast = [x.to(dtype if i == 0 else real).requires_grad_() for i, x in enumerate(draws)]
    y2, c2 = scan(*fast, cost.to(real), damp=0.8, support=0.9, floor=floor)
    ((y2.double() * weight).sum() + (c2.double() * weight_c).sum()).backward()
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(y2.double(), y, atol=tolerance, rtol=0)
    if dtype == torch.bfloat16:
        return  # events near the threshold differ, so single gradients may
    for a, b in zip(plain, fast, strict=True):
        torch.testing.assert_close(b.grad.double(), a.grad, atol=tolerance, rtol=tolerance)


def _reach(args, floor):
    """Distances from the threshold of the same run, with their history."""
    xk, y, c, kernel, bias, theta = args
    found = []
    for x in xk:
        xz, xr, xg = x.chunk(3, -1)
        yz, yr, yg = (y @ kernel + bias).chunk(3, -1)
        z, g = torch.sigmoid(xz + yz), torch.tanh(xg + torch.sigmoid(xr + yr) * yg)
        c = z * c + (1 - z) * g
        found.append(c - theta)
        o = heaviside(c - theta, 0.8, 0.9)
        y, c = graded(o, c, floor), c - o * theta
    return torch.stack(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_cross_entropy_has_the_loss_and_gradients_of_torch(dtype):
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(50, 16), torch.randn(77, 16), torch.randn(77)
    target = torch.randint(0, 77, (50,))
    plain = [x.to(dtype).float().requires_grad_() for x in (hidden, weight, bias)]
    want = torch.nn.functional.cross_entropy(plain[0] @ plain[1].t() + plain[2], target)
    want.backward()
    fast = [x.to(dtype).requires_grad_() for x in (hidden, weight, bias)]
    got = linear_cross_entropy(*fast, target)
    got.backward()
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(got.float(), want, atol=tolerance, rtol=tolerance)
    for a, b in zip(plain, fast, strict=True):
        torch.testing.assert_close(b.grad.float(), a.grad, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("with_bias", [False, True])
def test_without_gradients_logits_are_made_some_rows_at_a_time(with_bias, monkeypatch):
    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 16), torch.randn(77, 16, requires_grad=True)
    bias = torch.randn(77) if with_bias else None
    target = torch.randint(0, 77, (50,))
    wanted = linear_cross_entropy(hidden, weight, bias, target).detach()
    made = []
    plain = cross_entropy._softmax_gradient
    monkeypatch.setattr(cross_entropy, "MAX_LOGITS", 77 * 7)
    monkeypatch.setattr(
        cross_entropy,
        "_softmax_gradient",
        lambda logits, ids: (made.append(len(logits)), plain(logits, ids))[1],
    )
    with torch.no_grad():
        found = linear_cross_entropy(hidden, weight, bias, target)
    assert made == [7] * 7 + [1]
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


def test_linear_cross_entropy_refuses_a_target_outside_the_vocabulary():
    with pytest.raises(ValueError, match="target"):
        linear_cross_entropy(
            torch.zeros(1, 4), torch.zeros(3, 4), torch.zeros(3), torch.tensor([3])
        )
