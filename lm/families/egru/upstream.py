"""The published EGRU code's checkpoint: its state_dict and its config.yaml -> Model."""

from collections.abc import Mapping

import yaml
from torch import Tensor

from spiketrain.lm.families.egru.config import Config
from spiketrain.lm.families.egru.model import Model
from spiketrain.lm.keys import check_keys

_UPSTREAM = (  # parts of official keys and ours
    ("decoder.decoder.", "head."),
    ("decoder.projection.", "projection."),
    ("rnns.", "layers."),
    (".thr", ".threshold"),
)
_UPSTREAM_IGNORED = ("._max_norm", ".dampening_factor", ".pseudo_derivative_support")


def from_upstream(tensors: Mapping[str, Tensor], settings: str) -> Model:
    """The official checkpoint: its state_dict and the text of its config.yaml.

    Thresholds are clamped to [0, 1] as the official code does before each pass, and `carry` is
    "output".  Raises ValueError listing every missing, extra or misshapen key, or naming a setting
    that is missing or has no counterpart here.
    """
    weights = {}
    for name, value in tensors.items():
        if not name.endswith(_UPSTREAM_IGNORED):
            for theirs, ours in _UPSTREAM:
                name = name.replace(theirs, ours)
            weights[name] = value.clamp(0.0, 1.0) if name.endswith(".threshold") else value
    model = Model(_upstream_config(weights, settings))
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    check_keys(weights, shapes, "an EGRU language model")
    model.load_state_dict(weights)
    return model


def _upstream_config(weights: Mapping[str, Tensor], settings: str) -> Config:
    try:
        raw = yaml.safe_load(settings)
    except yaml.YAMLError as error:
        raise ValueError(f"config.yaml must be YAML: {error}") from error
    if not isinstance(raw, dict) or raw.get("rnn_type") != "egru":
        raise ValueError("config.yaml: rnn_type must be 'egru'")
    if "embeddings.weight" not in weights or weights["embeddings.weight"].ndim != 2:
        raise ValueError("embeddings.weight must be there with two dimensions")
    try:
        depth, hidden, width = int(raw["layers"]), int(raw["hidden_dim"]), int(raw["emb_dim"])
        projection, surrogate = bool(raw["projection"]), float(raw["pseudo_derivative_width"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"config.yaml: a setting is missing or no number: {error}") from error
    if not 1 <= depth <= 64:
        raise ValueError(f"config.yaml: layers must be in [1, 64], got {depth}")
    sizes = [hidden] * depth
    sizes[-1] = hidden if projection else width
    return Config(
        vocab_size=weights["embeddings.weight"].shape[0],
        embedding_size=width,
        hidden_sizes=sizes,
        projection=projection,
        pseudo_derivative_damp=surrogate,
        pseudo_derivative_support=surrogate,
        dropout_words=float(raw.get("dropout_words", 0.0)),
        dropout_embedding=float(raw.get("dropout_emb", 0.0)),
        dropout_forward=float(raw.get("dropout_forward", 0.0)),
        dropout_connect=float(raw.get("dropout_connect", 0.0)),
        dropout_decoder=0.5,  # a default argument of the official decoder, not a setting
        carry="output",
    )
