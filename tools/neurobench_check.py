"""Our synaptic operations and activation sparsity beside those of the neurobench package.

    pip install '.[train]' tqdm && pip install --no-deps neurobench snntorch
    python tools/neurobench_check.py [PACKAGE] [--tokens 200] [--json]

Two programs count the same networks over the same random tokens. Ours are the counters of the
runtime, as `spiketrain eval activity` prints them. NeuroBench hooks torch modules: an EGRU package
(default: the bundled one; none with a projection) is written out in modules of torch here; SpikeGPT
and SpikingBrain, fresh and small, run as `lm` has them, with their products as modules. All figures
are per token. Where definitions differ, `explained` is what theirs makes of ours:

- NeuroBench passes over zero weights, the kernels skip rows and not weights: `explained` of an EGRU
  is `synops_by_neurobench`; SpikingBrain has no zero weights here;
- it calls all operations of a product ACs, or all of them MACs, as the inputs are all -1, 0 and 1
  or not; our counters ask each input: sums are compared;
- it knows no additions of spikes to a residual (SpikeGPT's ACs), no nn.Embedding (an EGRU's first
  product is a table of rows by token, which counts as dense here), and of the squares of SpikeGPT's
  ReLUs nothing, which are a place of events here;
- it passes over zeros in what is read as a whole, which the kernels do not: SpikeGPT's first token
  has some.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from neurobench.benchmarks import Benchmark
from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
from neurobench.models import TorchModel
from torch import Tensor, nn

import spiketrain
from spiketrain import runtime
from spiketrain.evaluation.activity import measure_activity
from spiketrain.lm.export import export_model, family_module
from spiketrain.lm.families.spikegpt import mixes as spikegpt_mixes
from spiketrain.lm.families.spikegpt import model as spikegpt_model
from spiketrain.lm.families.spikingbrain.neurons import Linear
from spiketrain.runtime.package import read_package, write_package

SIZES: dict[str, dict[str, Any]] = {
    "spikegpt": {"hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 160},
    "spikingbrain": {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 96, "sliding_window": 24,
        "attn_layers": [1], "gate": "merged", "spikes": True,
    },
}  # fmt: skip
VOCAB = 257
COLUMNS = ("neurobench", "explained", "ours")
LIF = (".att", ".ffn")  # the layers whose units are LIF units


class Fired(nn.Module):
    """Events as they are: where NeuroBench looks for activations."""

    def forward(self, events: Tensor) -> Tensor:
        """Any shape."""
        return events


class Layer(nn.Module):
    """An EGRU's layer for one token, products as modules; steps: of an event of 1, or 0."""

    def __init__(self, package: Any, layer: int, steps: int) -> None:
        super().__init__()
        self.first = layer == 0
        inputs = linear(package.tensors, f"layers.{layer}.input")
        if self.first:
            table = torch.nn.functional.linear(embeddings(package.tensors), inputs.weight)
            self.input: nn.Module = nn.Embedding.from_pretrained(table + inputs.bias)
        else:
            self.input = inputs
        self.recurrent = linear(package.tensors, f"layers.{layer}.recurrent")
        self.threshold = torch.tensor(package.tensors[f"layers.{layer}.threshold"]).double()
        self.fired, self.steps = Fired(), steps
        self.cell = self.output = torch.zeros(1, len(self.threshold), dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        """Token (1,) of the first layer, or events (1, I) -> events (1, H)."""
        a, b = self.input(x), self.recurrent(self.output)
        (az, ar, ag), (bz, br, bg) = a.chunk(3, -1), b.chunk(3, -1)
        z, r = torch.sigmoid(az + bz), torch.sigmoid(ar + br)
        cell = z * self.cell + (1 - z) * torch.tanh(ag + r * bg)
        fires = cell > self.threshold
        events = torch.where(fires, cell, torch.zeros_like(cell))
        self.cell = torch.where(fires, cell - self.threshold, cell)
        self.output = torch.round(events * self.steps) / self.steps if self.steps else events
        return self.fired(self.output)


class EGRU(nn.Module):
    """An EGRU package in modules of torch, float64, one token a call."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        package = read_package(path)
        if "projection.weight" in package.tensors:
            raise SystemExit(f"{path}: must have no projection")
        steps = 32767 if package.config["spiketrain"]["events"] == "fixed16" else 0
        count = len(package.config["hidden_sizes"])
        self.layers = nn.Sequential(*(Layer(package, layer, steps) for layer in range(count)))
        self.head = linear(package.tensors, "head")

    def forward(self, token: Tensor) -> Tensor:
        """Token (1, 1) -> logits (1, V)."""
        return self.head(self.layers(token[0]))


class Recurrent(nn.Module):
    """A model of `lm` that reads one token a call and keeps its state here."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.places = nn.ModuleList(Fired() for _ in model.event_sizes)
        self.state = model.initial_state(1)

    def forward(self, token: Tensor) -> Tensor:
        """Token (1, 1) -> logits (1, V)."""
        features, self.state, events = self.model.features(token, self.state)
        for fired, of_place in zip(self.places, events, strict=True):
            fired(of_place)
        return self.model.logits(features)[:, 0]


def linear(tensors: Any, name: str) -> nn.Linear:
    """A package's matrix (I, O) as a module in float64, codes times scales."""
    weight = real(tensors, name)
    bias = tensors.get(f"{name}.bias")
    module = nn.Linear(*weight.shape, bias is not None).double().requires_grad_(False)
    module.weight.copy_(weight.t())
    if bias is not None:
        module.bias.copy_(torch.tensor(bias))
    return module


def embeddings(tensors: Any) -> Tensor:
    """The rows (V, e) that tokens stand for."""
    for name in ("embedding", "embeddings"):
        if f"{name}.weight" in tensors:
            return real(tensors, name, by_row=True)
    return linear(tensors, "head").weight


def real(tensors: Any, name: str, by_row: bool = False) -> Tensor:
    """A stored matrix in float64; its scales go with columns, or with rows."""
    weight = torch.tensor(tensors[f"{name}.weight"]).double()
    if f"{name}.scale" not in tensors:
        return weight
    scale = torch.tensor(tensors[f"{name}.scale"]).double()
    return weight * (scale[:, None] if by_row else scale)


def fresh(family: str, **fields: Any) -> Any:
    """A small model of `lm` whose neurons fire some of the time."""
    torch.manual_seed(0)
    module = family_module(family)
    model = module.Model(module.Config(vocab_size=VOCAB, **SIZES[family], **fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.mul_(4.0 if family == "spikingbrain" else 2.0)
    return model


def with_modules(model: Any, tensors: Any) -> Any:
    """The same model; its products call modules of torch, with the weights of its package."""
    spikegpt_mixes.product = spikegpt_model.product = lambda x, matrix: matrix(x)
    for name, child in list(model.named_modules()):
        if isinstance(child, Linear):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, linear(tensors, name[6:]).float())
    if model.config.model_type == "spikingbrain":
        model.model.embeddings.weight.data = embeddings(tensors).float()
        model.lm_head = linear(tensors, "lm_head").float()
        model.logits = lambda features: model.lm_head(features)
    return model


def without_zeros(path: Path) -> None:
    """Codes of 0 in a package become 1."""
    package = read_package(path)
    tensors = {name: np.array(tensor) for name, tensor in package.tensors.items()}
    for tensor in tensors.values():
        if tensor.dtype == np.int8:
            tensor[tensor == 0] = 1
    write_package(path, package.config, tensors, force=True)


def count(network: nn.Module, tokens: np.ndarray) -> dict[str, Any]:
    """NeuroBench's figures of a network over tokens (T,), each of them a sample."""
    wrapped = TorchModel(network)
    wrapped.add_activation_module(Fired)
    samples = [(torch.tensor([token]), torch.tensor([0])) for token in tokens.tolist()]
    loader = torch.utils.data.DataLoader(samples, batch_size=1)
    metrics = [[], [ActivationSparsity, SynapticOperations]]
    with torch.no_grad():
        results = Benchmark(wrapped, loader, [], [], metrics).run(quiet=True)
    return {"activation_sparsity": results["ActivationSparsity"], **results["SynapticOperations"]}


def compare(path: Path, network: nn.Module, tokens: np.ndarray) -> dict[str, Any]:
    """Ours, theirs, and what the differences in definition make of ours."""
    package = runtime.load_model(path)
    is_egru = package.config["model_type"] == "egru"
    report, _ = measure_activity(package, tokens, tokens.size if is_egru else 0)
    total, T = report["total"], tokens.size
    ours = {
        "activation_sparsity": total["activation_sparsity"],
        "Effective_MACs": total["synops_effective_macs"] / T,
        "Effective_ACs": total["synops_effective_acs"] / T,
        "Dense": total["synops_dense"] / T,
    }
    explained = {
        "activation_sparsity": ours["activation_sparsity"],
        "effective_operations": ours["Effective_MACs"] + ours["Effective_ACs"],
        "Dense": ours["Dense"],
    }
    if is_egru:
        first = package.config["embedding_size"] * 3 * package.config["hidden_sizes"][0]
        explained["effective_operations"] = report["synops_by_neurobench"]["effective_macs"] / T
        explained["Dense"] -= first
    elif package.config.get("neuron_position") == "residual":
        lif = [row["firing_rate"] for row in report["layers"] if row["name"].endswith(LIF)]
        explained["activation_sparsity"] = 1 - sum(lif) / len(lif)
        explained["effective_operations"] -= ours["Effective_ACs"]
    theirs = count(network, tokens)
    theirs["effective_operations"] = theirs["Effective_MACs"] + theirs["Effective_ACs"]
    return {"tokens": T, "ours": ours, "explained": explained, "neurobench": theirs}


def check(package: Path, num_tokens: int) -> dict[str, dict[str, Any]]:
    """Every network that both can run; the first is the EGRU package."""
    rng = np.random.default_rng(0)
    vocab = read_package(package).config["vocab_size"]
    figures = {"egru": compare(package, EGRU(package), rng.integers(0, vocab, num_tokens))}
    tokens = rng.integers(0, VOCAB, num_tokens)
    for name, family, weights, fields in (
        ("spikegpt, residual", "spikegpt", "float32", {}),
        ("spikegpt, projections", "spikegpt", "float32", {"neuron_position": "projections"}),
        ("spikingbrain", "spikingbrain", "int8", {}),
    ):
        model = fresh(family, **fields)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "p"
            export_model(model, path, weights=weights)
            if weights == "int8":
                without_zeros(path)
            network = Recurrent(with_modules(model, read_package(path).tensors))
            figures[name] = compare(path, network, tokens)
    return figures


def main() -> None:
    """Print one table for each network, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("package", nargs="?", type=Path, default=spiketrain.bundled_model())
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = check(options.package, options.tokens)
    if options.json:
        print(json.dumps(figures))
        return
    for name, one in figures.items():
        title = f"{name}, {one['tokens']} tokens"
        print(f"{title:<32}", *(f"{column:>16}" for column in COLUMNS))
        for key in one["neurobench"]:
            row = (one[column].get(key) for column in COLUMNS)
            values = ("" if value is None else f"{value:,.10g}" for value in row)
            print(f"  {key:<30}", *(f"{value:>16}" for value in values))


if __name__ == "__main__":
    main()
