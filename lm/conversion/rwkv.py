"""RWKV-4 -> SpikeGPT: the same matrices with spiking neurons between them, set from text.

SpikeGPT is RWKV-4 with LIF units on both branches of each block, or with spike counts before its
projections (arXiv 2302.13939, and `neuron_position` of its config): every weight has its place.
"""

import torch
from torch import Tensor

from spiketrain.lm.conversion.rates import Dial, calibrate_rates
from spiketrain.lm.families.spikegpt import Config, Model
from spiketrain.lm.families.spikegpt.neurons import LIF, MAX_COUNTS, MIN_THRESHOLD_SCALE, Spikes

VARIANTS = ("residual", "projections")
KEPT = (  # fields of the teacher's config that its weights or its measure depend on
    "hidden_size", "num_hidden_layers", "intermediate_size", "pre_ffn", "binary_embedding",
    "lif_tau", "lif_threshold", "layer_norm_eps", "carry",
)  # fmt: skip
LOUDEST, QUIETEST = 8.0, -12.0  # input scales of LIF units, as powers of 2
MAX_SCALE = 6.0  # threshold over mean|x| of spike counts, as a power of 2


@torch.no_grad()
def spikegpt_from_rwkv(teacher: Model, variant: str = "residual") -> Model:
    """A SpikeGPT with the weights of the RWKV-4 `teacher` (neuron_position "none").

    variant: the copy's neuron_position.  "residual": LIF units as published, threshold
    lif_threshold and input scale 1; every weight of the teacher is there.  "projections": spike
    counts of threshold_scale 1; k, v and r of a mix share a token shift there, which becomes the
    mean of the teacher's.

    binary_embedding is as in the teacher, for RWKV-4 false: its LayerNorm reads the rows' values,
    and a Heaviside would leave of them the signs, which nothing that is calibrated could make good.
    A fine-tuning recipe may ask for it.  Raises ValueError on another teacher or variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
    config = teacher.config
    for name, required in (("neuron_position", "none"), ("rescale", 0)):
        if getattr(config, name) != required:
            raise ValueError(
                f"teacher's {name} must be {required!r}, got {getattr(config, name)!r}: not RWKV-4"
            )
    kept = {name: getattr(config, name) for name in ("vocab_size", *KEPT)}
    model = Model(Config(**kept, neuron_position=variant))
    values, theirs = model.state_dict(), teacher.state_dict()
    values |= {name: value for name, value in theirs.items() if name in values}
    for name in values.keys() - theirs.keys():
        if name.endswith(".time_mix"):
            mixtures = [theirs[f"{name}_{part}"] for part in "kvr" if f"{name}_{part}" in theirs]
            values[name] = torch.stack(mixtures).mean(0)
    model.load_state_dict(values)
    return model.eval()


def calibrate_neurons(
    model: Model, input_ids: Tensor, low: float, high: float, skip: int = 16
) -> list[float]:
    """Set one number a layer such that its firing rate on input_ids (B, T) is in [low, high].

    LIF units: the input scale; their hard reset to 0 makes a scale s with threshold theta the same
    as a threshold theta/s with scale 1, so thresholds stay.  Spike counts: threshold_scale, whose
    rate is the share of inputs that are not 0.  Both are searched as powers of 2.  A layer that
    fires at most `high` at its loudest, such as a squared ReLU that is mostly 0, stays there.
    Returns the firing rates; see `calibrate_rates`, also for errors.
    """
    dials = [_dial(model, unit) for unit in _units(model)]
    return calibrate_rates(model, dials, input_ids, low, high, skip)


def _units(model: Model) -> list[LIF | Spikes]:
    """Neurons in the order of their events."""
    units: list[LIF | Spikes] = []
    for block in model.blocks:
        if block.fires:
            units += [block.lif1, block.lif2]
            continue
        first = getattr(block, block.first)
        inner = first.output_spikes if block.first == "att" else first.value_spikes
        units += [first.spikes, inner, block.ffn.spikes, block.ffn.value_spikes]
    return units if model.blocks[0].fires else [*units, model.head_spikes]


def _dial(model: Model, unit: LIF | Spikes) -> Dial:
    """LIF units: louder with the input scale; spike counts: quieter with threshold_scale."""
    if isinstance(unit, LIF):
        scale = unit.scale.data
        return Dial(lambda power: scale.fill_(2.0**power), LOUDEST, QUIETEST)
    threshold = unit.threshold_scale.data
    widest = max(model.config.hidden_size, model.config.intermediate_size)
    least = torch.tensor(max(MIN_THRESHOLD_SCALE, widest / MAX_COUNTS)).log2().item()
    return Dial(lambda power: threshold.fill_(2.0**power), least, MAX_SCALE)
