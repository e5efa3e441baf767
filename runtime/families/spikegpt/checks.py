"""Rules of a SpikeGPT config: every field's range, and which formats go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spiketrain.runtime.dial import most_dial
from spiketrain.runtime.families.spikegpt.layout import FLOATS

MODEL_TYPE = "spikegpt"
POSITIONS = ("residual", "projections", "none")
MAX_VOCAB_SIZE = 1 << 24
MAX_LAYERS = 256
# Sums of int8 * int8 over this many inputs stay below 2**31: 131072 * 127 * 127 < 2**31.
MAX_WIDTH = 1 << 17

_DEFAULTS: dict[str, Any] = {
    "pre_ffn": False,
    "binary_embedding": True,
    "rescale": 0,
    "neuron_position": "residual",
    "lif_tau": 2.0,
    "lif_threshold": 1.0,
    "layer_norm_eps": 1e-5,
}
_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    *_DEFAULTS,
)
_OTHER_KEYS = ("model_type", "architectures", "spiketrain")
_CLASSES = ("embedding", "body", "head")
_CODES = ("int8", "int4")
_HEADS = {"float32": FLOATS, "bfloat16": FLOATS, "int8": _CODES, "int4": _CODES}
_EVENTS = {"float32": "float32", "bfloat16": "float32", "int8": "fixed16", "int4": "fixed12"}


def from_config(cls: Any, config: Mapping[str, Any]) -> Any:
    """An object of `cls` from config.json: unknown and missing keys are errors."""
    if config.get("model_type") != MODEL_TYPE:
        raise ValueError(
            f"model_type must be {MODEL_TYPE!r}, got {config.get('model_type')!r:.200}"
        )
    for key in sorted(set(config) - set(_FIELDS) - set(_OTHER_KEYS)):
        raise ValueError(f"{key!s:.200} is unknown")
    values = {**_DEFAULTS, **{key: config[key] for key in _FIELDS if key in config}}
    for key in _FIELDS:
        if key not in values:
            raise ValueError(f"{key} is missing")
    ours = config["spiketrain"]
    weights = ours["weights"]
    if set(weights) != set(_CLASSES):
        raise ValueError(
            f"spiketrain.weights must have a format for each of {_CLASSES}, got {weights!r:.200}"
        )
    spec = cls(**values, **weights, max_dial=most_dial(ours))
    if ours["events"] != events_of(spec):
        raise ValueError(
            f"spiketrain.events must be {events_of(spec)!r} here, got {ours['events']!r:.200}"
        )
    return spec


def events_of(spec: Any) -> str:
    """Form of the events that products read: squared ReLUs in steps, or signed counts."""
    return "counts" if spec.neuron_position == "projections" else _EVENTS[spec.body]


def check_fields(spec: Any) -> None:
    """ValueError unless every field is of its kind and in its range."""
    _check_size("vocab_size", spec.vocab_size, MAX_VOCAB_SIZE)
    _check_size("hidden_size", spec.hidden_size, MAX_WIDTH)
    _check_size("num_hidden_layers", spec.num_hidden_layers, MAX_LAYERS)
    _check_size("intermediate_size", spec.intermediate_size, MAX_WIDTH)
    for name in ("pre_ffn", "binary_embedding"):
        if not isinstance(getattr(spec, name), bool):
            raise ValueError(f"{name} must be true or false, got {getattr(spec, name)!r:.200}")
    if type(spec.rescale) is not int or spec.rescale != 0:
        raise ValueError(
            f"rescale must be 0: weights are stored unscaled, got {spec.rescale!r:.200}"
        )
    if spec.neuron_position not in POSITIONS:
        raise ValueError(
            f"neuron_position must be one of {POSITIONS}, got {spec.neuron_position!r:.200}"
        )
    _check_number("lif_tau", spec.lif_tau, 1.0, 1e6)
    _check_number("lif_threshold", spec.lif_threshold, 1e-6, 1e6)
    _check_number("layer_norm_eps", spec.layer_norm_eps, 1e-12, 1.0)


def check_formats(spec: Any) -> None:
    """ValueError unless the weight formats go together."""
    if spec.body not in _HEADS:
        raise ValueError(
            f"spiketrain.weights.body must be one of {tuple(_HEADS)}, got {spec.body!r:.200}"
        )
    if spec.head not in _HEADS[spec.body]:
        raise ValueError(
            f"spiketrain.weights.head must be one of {_HEADS[spec.body]} with a "
            f"{spec.body} body, got {spec.head!r:.200}"
        )
    real = spec.body if spec.body in FLOATS else "int8"
    rule = "bits" if spec.binary_embedding else real
    if spec.embedding != rule:
        raise ValueError(
            f"spiketrain.weights.embedding must be {rule!r} here, got {spec.embedding!r:.200}"
        )


def _check_size(name: str, value: Any, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{name} must be a whole number in [1, {most}], got {value!r:.200}")


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise ValueError(f"{name} must be a number in [{low:g}, {high:g}], got {value!r:.200}")
