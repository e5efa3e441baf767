"""Llama and Qwen2 / Qwen3 checkpoints -> the same network here, from it a hybrid or linear one.

A decoder of these families is a SpikingBrain without linear layers, whose windows see every token:
every weight has its place, and an exact copy is both the teacher and the start.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spiketrain.lm.conversion.transformer_names import our_name
from spiketrain.lm.conversion.transformer_settings import transformer_config
from spiketrain.lm.families.spikingbrain import Config, Model
from spiketrain.lm.families.spikingbrain.upstream import expected_shapes
from spiketrain.lm.keys import check_keys, finite
from spiketrain.lm.progress import OnProgress, silent
from spiketrain.lm.shards import Held, Shards

VARIANTS = (
    "hybrid", "linear", "hybrid-spread", "linear-spread", "hybrid-published", "linear-published",
)  # fmt: skip
CHOSEN = "hybrid-chosen"  # windows where linear attention would cost most
KEPT = (  # fields of the teacher's config that its weights or its measure depend on
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "norm_eps", "rope_theta", "rotary_scaling", "max_position_embeddings",
    "qk_norm", "tie_word_embeddings", "carry",
)  # fmt: skip
WINDOW_SHARE = 8  # of the context: a hybrid's window
SHORTEST_MEMORY = 8.0  # tokens after which the quickest channel has forgotten half
HALF_LIFE = 2.0  # tokens, before fit_decays
HALF_LIVES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # tokens that fit_decays tries


def from_transformer(
    tensors: Shards | Held, settings: Mapping[str, Any], context: int | None = None
) -> Model:
    """The network of a Hugging Face Llama, Qwen2 or Qwen3 in float32; see `transformer_config`.

    Raises ValueError listing every missing, unknown or misshapen key, or naming a tensor with
    values that are not finite.
    """
    config = transformer_config(settings, context)
    kind, tied = settings["model_type"], config.tie_word_embeddings
    places = {our_name(name): name for name in tensors if not name.endswith(".inv_freq")}
    shapes = {
        name: shape
        for name, shape in expected_shapes(config).items()
        if (kind == "qwen2" or not name.endswith("_proj.bias"))
        and (name in places or not (tied and name == "lm_head.weight"))
    }
    check_keys({name: tensors[theirs] for name, theirs in places.items()}, shapes, kind)
    model = Model(config)
    values = model.state_dict()
    values |= {name: finite(tensors.read(places[name]), places[name]) for name in shapes}
    if tied:
        values["lm_head.weight"] = values["model.embeddings.weight"]
    model.load_state_dict(values)
    return model.eval()


@torch.no_grad()
def spikingbrain_from_transformer(
    teacher: Model, variant: str = "hybrid", attn_layers: list[int] | None = None
) -> Model:
    """The teacher's weights with linear attention in place of softmax; no spikes yet.

    "hybrid": windows of an eighth of the context in attn_layers, odd ones unless told, linear
    elsewhere; "linear": linear everywhere.  New are the decays: every channel forgets half in
    HALF_LIFE tokens, which is for fit_decays to better; "-published": in 16 tokens, as in
    upstream's code; "-spread": the channels of a head in SHORTEST_MEMORY tokens to the context, in
    equal ratios.  Raises ValueError on another variant, or a teacher with linear layers.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
    teacher_config = teacher.config
    if len(teacher_config.attn_layers) != teacher_config.num_hidden_layers:
        raise ValueError(
            f"teacher's attn_layers must be all {teacher_config.num_hidden_layers}, "
            f"got {teacher_config.attn_layers}"
        )
    kept = {name: getattr(teacher_config, name) for name in ("vocab_size", *KEPT)}
    linear = variant.startswith("linear")
    window = max(1, teacher_config.max_position_embeddings // WINDOW_SHARE)
    student = Model(
        Config(
            **kept,
            attn_layers=[] if linear else attn_layers,
            sliding_window=window,
            window_keys=window,
        )
    )
    values = student.state_dict()
    theirs = teacher.state_dict()
    student.load_state_dict({name: theirs.get(name, value) for name, value in values.items()})
    if variant.endswith("-spread"):
        longest = max(SHORTEST_MEMORY, float(teacher_config.max_position_embeddings))
        place = torch.linspace(0.0, 1.0, teacher_config.head_dim, dtype=torch.float64)
        set_decays(student, SHORTEST_MEMORY * (longest / SHORTEST_MEMORY) ** place)
    elif not variant.endswith("-published"):
        set_decays(student, torch.full((teacher_config.head_dim,), HALF_LIFE, dtype=torch.float64))
    return student.eval()


def set_decays(model: Model, halves: Tensor) -> None:
    """Set every gate's bias by the half-lives of a head's channels, (d,) tokens.

    exp(logsigmoid(b) / normalizer)^h = 1/2 at h tokens.
    """
    config = model.config
    kept = -config.gate_logit_normalizer * math.log(2.0) / halves  # log sigmoid(b)
    biases = kept - torch.log(-torch.expm1(kept))
    for block in model.model.layers:
        if block.attn.linear:
            block.attn.gk_proj[1].bias.copy_(biases.repeat(config.num_key_value_heads))


@torch.no_grad()
def fit_decays(
    student: Model, teacher: Model, input_ids: Tensor, on_progress: OnProgress = silent
) -> float:
    """Give all channels the one of HALF_LIVES that predicts input_ids (B, T) best; return it.

    Outputs are matched to the teacher's, as by match_outputs.
    """
    width = student.config.head_dim

    def loss(half: float) -> float:
        set_decays(student, torch.full((width,), half, dtype=torch.float64))
        match_outputs(student, teacher, input_ids)
        features, _, _ = student.features(input_ids[:, :-1])
        return float(student.mean_nll(features, input_ids[:, 1:]))

    losses = {}
    for half in HALF_LIVES:
        losses[half] = loss(half)
        on_progress(len(losses), len(HALF_LIVES) + 1)
    best = min(HALF_LIVES, key=losses.__getitem__)
    loss(best)
    return best


@torch.no_grad()
def match_outputs(student: Model, teacher: Model, input_ids: Tensor) -> None:
    """Set g_norm of linear layers so that each channel's strength is the teacher's on input_ids.

    Normalised outputs have mean square 1, softmax's are means of values: an untrained copy would
    drown the residual.  One pass of the teacher; heads share g_norm (d,).
    """
    outputs: dict[int, Tensor] = {}
    hooks = [
        block.attn.o_proj.register_forward_pre_hook(
            lambda _, inputs, i=i: outputs.__setitem__(i, inputs[0])
        )
        for i, block in enumerate(teacher.model.layers)
    ]
    try:
        teacher.features(input_ids)
    finally:
        for hook in hooks:
            hook.remove()
    for i, block in enumerate(student.model.layers):
        if block.attn.linear:
            heads = outputs[i].unflatten(-1, (-1, student.config.head_dim))
            block.attn.g_norm.weight.copy_(heads.square().mean((0, 1, 2)).sqrt())


@torch.no_grad()
def sensitive_layers(
    teacher: Model, input_ids: Tensor, on_progress: OnProgress = silent
) -> list[int]:
    """Half of the layers, rounded down: where linear attention costs most on input_ids (B, T).

    Each is tried alone, untrained, with windows everywhere else.
    """
    layers = range(teacher.config.num_hidden_layers)
    losses = []
    for i in layers:
        student = spikingbrain_from_transformer(teacher, "hybrid", [j for j in layers if j != i])
        match_outputs(student, teacher, input_ids)
        features, _, _ = student.features(input_ids[:, :-1])
        losses.append(student.mean_nll(features, input_ids[:, 1:]).item())
        on_progress(i + 1, len(layers))
    return sorted(sorted(layers, key=lambda i: -losses[i])[: len(layers) // 2])


@torch.no_grad()
def with_spikes(model: Model, **fields: Any) -> Model:
    """The same weights, read by spike counts; fields of its config may be replaced."""
    config = copy.deepcopy(model.config)
    config.spikes = True
    for name, value in fields.items():
        setattr(config, name, value)
    spiking = Model(config)
    spiking.load_state_dict(model.state_dict(), strict=False)
    return spiking.eval()
