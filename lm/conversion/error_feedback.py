"""Integer weights whose rounding errors are made good by the weights not yet rounded (GPTQ).

Inputs are rounded one after the other; what that changes in the outputs, on a text's inputs, is
taken out of the later inputs' weights through the inverse Hessian X^T X (arXiv 2210.17323).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from spiketrain.lm.families.spikingbrain import Model
from spiketrain.lm.families.spikingbrain.formats import Formats
from spiketrain.lm.families.spikingbrain.neurons import Linear
from spiketrain.lm.progress import OnProgress, silent
from spiketrain.lm.quantize import choose_multipliers, halves, quantize_int4_inputs
from spiketrain.lm.stored import Stored
from spiketrain.runtime.formats import GROUP, MAX_MULTIPLIER, SPAN

BLOCK = 128  # inputs after whose rounding all later ones are told; a multiple of GROUP
DAMPING = 0.01  # of the Hessian's mean diagonal
FORMATS = ("int8", "int4-go", "int4-gi")

Rounder = Callable[[int, Tensor], tuple[Tensor, Tensor]]


@torch.no_grad()
def feedback_codes(
    model: Model, input_ids: Tensor, weights: str, on_progress: OnProgress = silent
) -> dict[str, Stored]:
    """Stored tensors of the blocks' matrices in the formats of `weights`, int8 or int4.

    Layer by layer, on what each matrix reads of input_ids (B, T) with the layers before it rounded
    already; the model's own weights become the rounded ones.  Experts are left to plain rounding.
    """
    formats = Formats.of(model.config, weights)
    codes: dict[str, Stored] = {}
    for i, block in enumerate(model.model.layers):
        matrices = {
            name: module
            for name, module in block.named_modules(prefix=f"layers.{i}")
            if isinstance(module, Linear) and name.endswith("_proj") and "expert" not in name
        }
        hessians = _hessians(model, matrices, input_ids)
        for name, matrix in matrices.items():
            form = formats.down if name.endswith("down_proj") else formats.body
            if form in FORMATS:
                values, codes[name] = round_with_feedback(
                    matrix.weight.t().float(), hessians[name], form
                )
                matrix.weight.copy_(values.t())
        on_progress(i + 1, len(model.model.layers))
    return codes


def round_with_feedback(weight: Tensor, hessian: Tensor, form: str) -> tuple[Tensor, Stored]:
    """Values (I, O) near weight (I, O) that the stored tensors stand for; form: of FORMATS.

    hessian (I, I): X^T X of the inputs.  Inputs that never come are rounded alone.
    """
    left = weight.double().clone()
    inverse = _inverse_factor(hessian.double())
    rounder, finish = _rounder(weight, left, form)
    values = torch.empty_like(left)
    errors = torch.empty_like(left)
    for start in range(0, len(left), BLOCK):
        end = min(start + BLOCK, len(left))
        for i in range(start, end):
            values[i] = rounder(i, left[i])
            errors[i] = (left[i] - values[i]) / inverse[i, i]
            left[i + 1 : end] -= torch.outer(inverse[i, i + 1 : end], errors[i])
        left[end:] -= inverse[start:end, end:].t() @ errors[start:end]  # all later rows at once
    return values.float(), finish()


def _inverse_factor(hessian: Tensor) -> Tensor:
    """Upper Cholesky factor of the damped Hessian's inverse."""
    diagonal = hessian.diagonal()
    silent = diagonal == 0
    hessian = hessian + torch.diag(silent.double() + DAMPING * diagonal.mean().clamp_min(1e-12))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _rounder(weight: Tensor, left: Tensor, form: str):
    """What rounds the weights of an input, and what gives the stored tensors at the end."""
    codes = torch.zeros_like(weight)
    if form == "int8":
        scale = weight.abs().amax(0) / 127.0
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))

        def to_int8(i: int, row: Tensor) -> Tensor:
            codes[i] = torch.round(row / scale).clamp(-127, 127)
            return codes[i] * scale

        return to_int8, lambda: {"weight": codes.to(torch.int8), "scale": scale}
    if form == "int4-go":
        scale = weight.abs().amax(0) / (7 * MAX_MULTIPLIER)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        multipliers = torch.zeros(len(weight), -(-weight.shape[1] // SPAN))

        def to_int4_outputs(i: int, row: Tensor) -> Tensor:
            row_codes, factors = choose_multipliers(row[None].float(), scale)
            codes[i], multipliers[i] = row_codes[0], factors[0]
            return codes[i] * factors[0].repeat_interleave(SPAN)[: len(row)] * scale

        return to_int4_outputs, lambda: {
            "weight": halves(codes),
            "multiplier": multipliers.to(torch.uint8),
            "scale": scale,
        }
    scales = torch.ones(-(-len(weight) // GROUP), weight.shape[1])

    def to_int4_inputs(i: int, row: Tensor) -> Tensor:
        if i % GROUP == 0:
            scales[i // GROUP] = quantize_int4_inputs(left[i : i + GROUP].float(), GROUP)[1][0]
        codes[i] = torch.round(row / scales[i // GROUP]).clamp(-8, 7)
        return codes[i] * scales[i // GROUP]

    return to_int4_inputs, lambda: {"weight": halves(codes), "scale": scales}


def _hessians(model: Model, matrices: dict[str, Linear], input_ids: Tensor) -> dict[str, Tensor]:
    """X^T X of what each matrix reads; matrices that read the same share it."""
    hessians: dict[str, Tensor] = {}
    shared: dict[int, Tensor] = {}

    def note(name: str, x: Tensor) -> None:
        if id(x) not in shared:
            rows = x.flatten(0, -2).double()
            shared[id(x)] = rows.t() @ rows
        hessians[name] = shared[id(x)]

    hooks = [
        matrix.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs[0]))
        for name, matrix in matrices.items()
    ]
    try:
        model.features(input_ids)
    finally:
        for hook in hooks:
            hook.remove()
    return hessians
