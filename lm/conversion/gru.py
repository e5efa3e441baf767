"""GRU -> EGRU: gates reordered, and one or two spiking units for each unit of the GRU.

torch orders a GRU's gates r, z, n with rows as outputs, EGRU z, r, g with columns as outputs.  In
both z keeps the old state and r acts after the recurrent product, bias included, so the equations
agree but for the output: h of a GRU is in (-1, 1), y of an EGRU is its cell where that is above a
threshold, else 0 (arXiv 2206.06178).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from spiketrain.lm.families.egru import Config, Model

VARIANTS = ("paired", "single")
KEPT = ("embedding_size", "hidden_sizes", "projection", "tie_word_embeddings")


def egru_from_gru(tensors: Mapping[str, Tensor], variant: str = "paired") -> Model:
    """An EGRU with the weights of a GRU language model and thresholds 0.

    tensors: names of torch's own modules, as in PyTorch's word-language-model example:
    encoder.weight (V, e), rnn.{weight_ih,weight_hh}_l<k> (3H, .), rnn.{bias_ih,bias_hh}_l<k> (3H,),
    decoder.weight (V, H), decoder.bias (V,).

    variant "paired": a unit becomes two, one with h for its cell and one with -h, so that their
    outputs max(h, 0) and max(-h, 0) carry all of h = y+ - y-: at thresholds 0 the EGRU gives the
    GRU's logits, at four times the recurrent weights.  "single": a unit becomes one and what h < 0
    said is lost until training repairs it.  Raises ValueError on another variant, or listing every
    key that does not fit.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
    depth, hidden = check_gru(tensors)
    signs = (1.0, -1.0) if variant == "paired" else (1.0,)
    vocab, width = tensors["encoder.weight"].shape
    config = Config(
        vocab_size=vocab,
        embedding_size=width,
        hidden_sizes=[hidden * len(signs)] * depth,
        tie_word_embeddings=False,
    )
    model = Model(config)
    state = {"embeddings.weight": tensors["encoder.weight"]}
    for k in range(depth):
        first = (1.0,) if k == 0 else signs  # the embedding is no event
        state[f"layers.{k}.kernel"] = _kernel(tensors[f"rnn.weight_ih_l{k}"], first, signs)
        state[f"layers.{k}.recurrent_kernel"] = _kernel(
            tensors[f"rnn.weight_hh_l{k}"], signs, signs
        )
        state[f"layers.{k}.bias"] = _gates(tensors[f"rnn.bias_ih_l{k}"], signs)
        state[f"layers.{k}.recurrent_bias"] = _gates(tensors[f"rnn.bias_hh_l{k}"], signs)
        state[f"layers.{k}.threshold"] = torch.zeros(config.hidden_sizes[k])
    state["head.weight"] = torch.cat([sign * tensors["decoder.weight"] for sign in signs], 1)
    state["head.bias"] = tensors["decoder.bias"]
    model.load_state_dict(state)
    return model.eval()


def check_gru(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Layers and units of the GRU in `tensors`; ValueError lists every key that does not fit."""
    anchors = ("encoder.weight", "rnn.weight_hh_l0")
    wrong = [f"{name} must be there with two dimensions" for name in anchors
             if name not in tensors or tensors[name].ndim != 2]  # fmt: skip
    if wrong:
        raise ValueError("keys do not fit a GRU language model: " + "; ".join(wrong))
    (vocab, width), hidden = tensors["encoder.weight"].shape, tensors["rnn.weight_hh_l0"].shape[1]
    depth = sum(name.startswith("rnn.weight_hh_l") for name in tensors)
    shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (vocab, width)}
    shapes |= {"decoder.weight": (vocab, hidden), "decoder.bias": (vocab,)}
    for k in range(depth):
        shapes[f"rnn.weight_ih_l{k}"] = (3 * hidden, hidden if k else width)
        shapes[f"rnn.weight_hh_l{k}"] = (3 * hidden, hidden)
        shapes |= {f"rnn.bias_{part}_l{k}": (3 * hidden,) for part in ("ih", "hh")}
    wrong = [f"{name} is missing" for name in shapes.keys() - tensors.keys()]
    wrong += [f"{name} is unknown" for name in tensors.keys() - shapes.keys()]
    wrong += [
        f"{name} is {tuple(tensors[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if wrong:
        raise ValueError("keys do not fit a GRU language model: " + "; ".join(sorted(wrong)))
    return depth, hidden


def _kernel(weight: Tensor, inputs: tuple[float, ...], outputs: tuple[float, ...]) -> Tensor:
    """Rows r, z, n (3H, I) -> columns z, r, g (I', 3H'), signs of inputs along the rows."""
    columns = _gates(weight, outputs).t()
    return torch.cat([sign * columns for sign in inputs]).contiguous()


def _gates(values: Tensor, signs: tuple[float, ...]) -> Tensor:
    """(3H, ...) in r, z, n -> z, r, g, a copy for each sign; gates are even in it, g is odd."""
    r, z, n = values.chunk(3)
    return torch.cat([z for _ in signs] + [r for _ in signs] + [sign * n for sign in signs])
