"""Integer codes for weights: int8 with one scale per output, int4 with groups of weights.

Halves of int4: two codes + 8 a byte, codes in [-8, 7], the lower output in the low nibble.
"""

import torch
from torch import Tensor

from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.formats import GROUP, MAX_MULTIPLIER, SPAN

# Steps from zero to a group's largest weight: the sides have eight and seven; clipping that one a
# little may round the many small ones better.
_STEPS = (7.0, 7.5, 8.0, 8.5, 6.5)
_AT_ONCE = 1 << 16  # weights that are tried at a time: temporaries stay in the cache


def quantize_int8(weight: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """Codes in [-127, 127] (int8, weight's shape) and float32 scales, weight ~ codes * scale.

    One scale for all values along `dim`: max|w| / 127, or 1 where they are all zero; rounding is
    half to even.  Raises ValueError on a weight that is not finite.
    """
    weight = _finite(weight)
    scale = weight.abs().amax(dim) / 127.0
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    codes = torch.round(weight / scale.unsqueeze(dim)).clamp_(-127, 127).to(torch.int8)
    return codes, scale


def quantize_int4_inputs(weight: Tensor, group: int = GROUP) -> tuple[Tensor, Tensor]:
    """Int4 with groups along the inputs (int4-gi), for dense int8 inputs.

    weight (I, O) -> codes (I, ceil(O / 2)) uint8 halves; scale (ceil(I / group), O) float32 above 0
    that bfloat16 holds: weight ~ code * scale of its group.  Of several scales the one with the
    least squared error is taken, 1 where all are zero.
    Raises ValueError on a weight that is not finite, or a group other than 32 or 64.
    """
    if group not in (32, 64):
        raise ValueError(f"group must be 32 or 64, got {group}")
    weight = _finite(weight)
    inputs, outputs = weight.shape
    groups = -(-inputs // group)
    padded = torch.nn.functional.pad(weight, (0, 0, 0, groups * group - inputs))
    blocks = padded.view(groups, group, outputs)
    scale = torch.empty(groups, 1, outputs)
    for rows in _pieces(groups, group * outputs):
        scale[rows] = _best_scale(blocks[rows])
    codes = torch.round_(blocks / scale).clamp_(-8, 7)
    return halves(codes.view(-1, outputs)[:inputs]), scale.squeeze(1)


def _best_scale(blocks: Tensor) -> Tensor:
    """Scales (groups, 1, O) of blocks (groups, group, O) with the least squared error."""
    extreme = blocks.abs().amax(1, keepdim=True)
    scale = torch.ones_like(extreme)
    least = torch.full_like(extreme, torch.inf)
    for steps in _STEPS:
        tried = (extreme / steps).to(torch.bfloat16).to(torch.float32)
        tried = torch.where(tried > 0, tried, torch.ones_like(tried))
        error = _rounding_error(blocks, tried).sum(1, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        scale = torch.where(better, tried, scale)
    return scale


def _rounding_error(values: Tensor, step: Tensor | float) -> Tensor:
    """Squared errors of values as codes in [-8, 7] times the step."""
    return (values / step).round_().clamp_(-8, 7).mul_(step).sub_(values).square_()


def _pieces(rows: int, width: int) -> list[slice]:
    """Ranges of rows of about _AT_ONCE values."""
    step = max(1, _AT_ONCE // width)
    return [slice(start, start + step) for start in range(0, rows, step)]


def quantize_int4_outputs(weight: Tensor, span: int = SPAN) -> tuple[Tensor, Tensor, Tensor]:
    """Int4 with groups along the outputs (int4-go), for spikes and events.

    weight (I, O) -> codes (I, ceil(O / 2)) uint8 halves; multiplier (I, ceil(O / span)) uint8 in
    1 .. 15; scale (O,) float32: weight ~ code * multiplier * scale, the multiplier with the least
    squared error of its weights in units of their scales.
    An output's scale serves all its inputs: max|w| / 105, which is 7 * 15, or 1 where all are
    zero.  Raises ValueError on a weight that is not finite.
    """
    weight = _finite(weight)
    scale = weight.abs().amax(0) / (7 * MAX_MULTIPLIER)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    codes, multiplier = choose_multipliers(weight, scale, span)
    return halves(codes), multiplier.to(torch.uint8), scale


def choose_multipliers(weight: Tensor, scale: Tensor, span: int = SPAN) -> tuple[Tensor, Tensor]:
    """Codes (I, O) and multipliers (I, ceil(O / span)) of `quantize_int4_outputs`, scales given."""
    inputs, outputs = weight.shape
    spans = -(-outputs // span)
    steps = torch.nn.functional.pad(weight / scale, (0, spans * span - outputs))
    blocks = steps.view(inputs, spans, span)
    multiplier = torch.empty(inputs, spans, 1)
    for rows in _pieces(inputs, spans * span):
        multiplier[rows] = _best_multiplier(blocks[rows])
    codes = torch.round_(blocks / multiplier).clamp_(-8, 7)
    return codes.view(inputs, -1)[:, :outputs], multiplier.squeeze(2)


def _best_multiplier(blocks: Tensor) -> Tensor:
    """Multipliers (I, spans, 1) of blocks (I, spans, span) with the least squared error."""
    multiplier = torch.ones(*blocks.shape[:2], 1)
    least = torch.full_like(multiplier, torch.inf)
    for tried in range(1, MAX_MULTIPLIER + 1):
        error = _rounding_error(blocks, float(tried)).sum(2, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        multiplier.masked_fill_(better, float(tried))
    return multiplier


def bits_of_bfloat16(weight: Tensor) -> Tensor:
    """The bits of float32 values rounded to bfloat16, half to even, as uint16."""
    return weight.detach().to(torch.bfloat16).view(torch.uint16)


def fits_bfloat16(weight: Tensor) -> bool:
    """Whether rounding to bfloat16 changes no value."""
    return torch.equal(weight, weight.to(torch.bfloat16).to(weight.dtype))


def _finite(weight: Tensor) -> Tensor:
    if not bool(torch.isfinite(weight).all()):
        raise SpiketrainError("weight has values that are not finite")
    return weight.detach().to(torch.float32)


def halves(codes: Tensor) -> Tensor:
    """Codes (I, O) in [-8, 7] as halves (I, ceil(O / 2))."""
    shifted = torch.nn.functional.pad((codes + 8).to(torch.uint8), (0, codes.shape[1] % 2))
    return shifted[:, ::2] | shifted[:, 1::2] << 4
