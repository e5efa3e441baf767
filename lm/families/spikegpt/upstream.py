"""Checkpoints of the published SpikeGPT and of RWKV-4, official or Hugging Face's, -> Model.

SpikeGPT's and RWKV-4's official files have the same keys and shapes: what they mean is the user's
to say.  `choices` is how: config fields that replace the published ones.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spiketrain.lm.families.spikegpt.config import Config
from spiketrain.lm.families.spikegpt.model import Model
from spiketrain.lm.imported import Imported
from spiketrain.lm.keys import check_keys
from spiketrain.runtime.families.spikegpt.spec import MAX_LAYERS

SEMANTICS = ("spikegpt", "rwkv4")
CHOICES = (  # that another revision of the published code made, as config fields
    "binary_embedding", "rescale", "lif_threshold", "lif_tau", "layer_norm_eps",
)  # fmt: skip
_BLOCK = re.compile(r"blocks\.(\d{1,4})\.")
_HUGGING_FACE = (  # parts of Hugging Face's RWKV names and the official ones
    ("rwkv.embeddings.", "emb."),
    ("rwkv.", ""),
    (".pre_ln.", ".ln0."),
    (".attention.", ".att."),
    (".feed_forward.", ".ffn."),
    (".time_mix_key", ".time_mix_k"),
    (".time_mix_value", ".time_mix_v"),
    (".time_mix_receptance", ".time_mix_r"),
)


def is_upstream(tensors: Mapping[str, Any]) -> bool:
    """Whether these are the keys of an official SpikeGPT or RWKV-4 file."""
    return "emb.weight" in tensors and "ln_out.weight" in tensors


def from_upstream(
    tensors: Mapping[str, Tensor],
    semantics: str = "spikegpt",
    choices: Mapping[str, Any] | None = None,
) -> Imported:
    """The official state_dict: semantics "spikegpt" (the training code's) or "rwkv4".

    choices: fields of CHOICES for weights of another revision.  Values become float32; LIF
    thresholds and scales that are not there become lif_threshold and 1.  Raises ValueError listing
    every missing, unknown or misshapen key, or naming the choice that cannot be.
    """
    if semantics not in SEMANTICS:
        raise ValueError(f"semantics must be one of {SEMANTICS}, got {semantics!r}")
    choices = dict(choices or {})
    for name in choices:
        if name not in CHOICES:
            raise ValueError(f"choices must be among {CHOICES}, got {name!r}")
    weights = {name: value.detach().float() for name, value in tensors.items()}
    position = "residual" if semantics == "spikegpt" else "none"
    config = Config(**(_sizes(weights) | {"neuron_position": position} | choices))
    with torch.device("meta"):
        shapes = {name: tuple(x.shape) for name, x in Model(config).state_dict().items()}
    fill = {"threshold": config.lif_threshold, "scale": 1.0}
    for name, shape in shapes.items():
        if name not in weights and ".lif" in name:
            weights[name] = torch.full(shape, fill[name.rpartition(".")[2]])
    check_keys(weights, shapes, f"{semantics} with {config.num_hidden_layers} blocks")
    model = Model(config)
    model.load_state_dict(weights)
    return Imported(model.eval(), _decisions(semantics, config, choices))


def from_hugging_face(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], rescaled: bool = False
) -> Imported:
    """Tensors and config.json of a Hugging Face RwkvForCausalLM (RWKV-4).

    rescaled: whether they were saved after a pass in evaluation mode, which divides what the
    branches of block i give by 2^(i // rescale_every), for good.  Raises ValueError.
    """
    upstream = {}
    for name, value in tensors.items():
        for theirs, ours in _HUGGING_FACE:
            name = name.replace(theirs, ours)
        upstream[name] = value.detach().float()
    if settings.get("tie_word_embeddings") and "emb.weight" in upstream:
        upstream.setdefault("head.weight", upstream["emb.weight"].clone())
    every = settings.get("rescale_every", 6)
    if not isinstance(every, int) or every < 0:
        raise ValueError(f"config.json: rescale_every must be a whole number, got {every!r:.100}")
    if rescaled and every:
        for name, value in upstream.items():
            block = _BLOCK.match(name)
            if block and name.endswith((".att.output.weight", ".ffn.value.weight")):
                upstream[name] = value * 2.0 ** (int(block[1]) // every)
    eps = settings.get("layer_norm_epsilon", 1e-5)
    if not isinstance(eps, float) or not 0.0 < eps < 1.0:
        raise ValueError(f"config.json: layer_norm_epsilon must be in (0, 1), got {eps!r:.100}")
    read = from_upstream(upstream, "rwkv4", {} if eps == 1e-5 else {"layer_norm_eps": eps})
    weights = "rescaled: undone" if rescaled and every else "as they are"
    if every and read.model.config.num_hidden_layers > every and not rescaled:
        weights += "; if they were saved after a pass in evaluation mode, --rescaled undoes that"
    decisions = (
        "rwkv4: config.json says model_type rwkv",
        *read.decisions[1:],
        f"weights {weights}",
    )
    return Imported(read.model, decisions)


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Config fields that the tensors' names and shapes tell."""
    embedding, key = tensors.get("emb.weight"), tensors.get("blocks.0.ffn.key.weight")
    for name, value in (("emb.weight", embedding), ("blocks.0.ffn.key.weight", key)):
        if value is None or value.ndim != 2:
            raise ValueError(f"{name} must be there with two dimensions")
    assert embedding is not None
    assert key is not None
    layers = 1 + max(int(block[1]) for block in map(_BLOCK.match, tensors) if block)
    if layers > MAX_LAYERS:
        raise ValueError(f"there must be at most {MAX_LAYERS} blocks, got {layers}")
    return {
        "vocab_size": embedding.shape[0],
        "hidden_size": embedding.shape[1],
        "num_hidden_layers": layers,
        "intermediate_size": key.shape[0],
        "pre_ffn": any(name.startswith("blocks.0.ffnPre.") for name in tensors),
    }


def _decisions(semantics: str, config: Config, choices: Mapping[str, Any]) -> tuple[str, ...]:
    spiking = semantics == "spikegpt"
    other = "rwkv4" if spiking else "spikegpt"
    reasons = {
        "binary_embedding": "as the training code does for every vocabulary"
        if spiking
        else "RWKV-4 reads the rows themselves",
        "rescale": "the training code has none"
        if spiking
        else "weights are as trained, float32 needs none",
    }
    decisions = [
        f"{semantics}: keys are the same for {other}, see --semantics",
        f"neuron_position {config.neuron_position}: "
        + ("LIF units on both branches of each block" if spiking else "no spiking units"),
    ]
    for name, reason in reasons.items():
        why = "chosen by --choose" if name in choices else reason
        decisions.append(f"{name} {str(getattr(config, name)).lower()}: {why}")
    decisions += [f"{k} {v}: chosen by --choose" for k, v in choices.items() if k not in reasons]
    return tuple(decisions)
