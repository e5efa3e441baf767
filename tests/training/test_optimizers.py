"""Which optimizer updates which parameters, and by how much."""

import pytest

torch = pytest.importorskip("torch")

from spiketrain.training.config import OptimizerConfig  # noqa: E402
from spiketrain.training.optimizers import Optimizers  # noqa: E402

VOCAB = 50


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(VOCAB, 8)
        self.inner = torch.nn.Linear(8, 12)
        self.still = torch.nn.Linear(12, 12, bias=False)
        self.still.weight.requires_grad_(False)

    def loss(self):
        return self.still(self.inner(self.embedding.weight)).square().mean()


def changes(kind, rate=0.01, **fields):
    """What one step takes from each parameter of a new network."""
    net = Net()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizers = Optimizers(net, OptimizerConfig(kind=kind, **fields), VOCAB)
    optimizers.zero_grad()
    net.loss().backward()
    optimizers.step(rate)
    return {name: before[name] - p.detach() for name, p in net.named_parameters()}


def test_muon_makes_the_updates_of_inner_matrices_orthogonal():
    found = changes("muon", weight_decay=0.0)
    plain = changes("adamw", weight_decay=0.0)
    values = torch.linalg.svdvals(found["inner.weight"])
    assert values.min() > 0.6 * values.max()
    spread = torch.linalg.svdvals(plain["inner.weight"])
    assert spread.min() < 0.3 * spread.max()
    for name in ("embedding.weight", "inner.bias"):
        assert torch.equal(found[name], plain[name])
    assert not found["still.weight"].any()


def test_muon_takes_the_rates_of_adamw():
    found = changes("muon", weight_decay=0.0)["inner.weight"]
    assert 0.1 * 0.01 < found.square().mean().sqrt() < 0.3 * 0.01  # of AdamW's about 0.2 later on
    twice = changes("muon", rate=0.02, weight_decay=0.0)["inner.weight"]
    assert torch.allclose(twice, 2 * found, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_matrices_alone_decay(kind):
    plain, decayed = (changes(kind, weight_decay=decay) for decay in (0.0, 0.5))
    start = dict(Net().named_parameters())
    for name in ("embedding.weight", "inner.weight"):
        gone = decayed[name] - plain[name]
        assert torch.allclose(gone, 0.01 * 0.5 * start[name].detach(), rtol=1e-3, atol=1e-7)
    assert torch.equal(decayed["inner.bias"], plain["inner.bias"])
