"""Linear head and softmax cross-entropy in one: gradients are made in the forward pass."""

import torch
from torch import Tensor

import spiketrain.lm.kernels.fused as fused

MAX_LOGITS = 1 << 26  # at a time, where no gradient is wanted


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    wrap: float = 0.0,
) -> Tensor:
    """Mean negative log-likelihood in nats of hidden (N, F) @ weight (V, F)^T + bias (V,).

    Products run in hidden's dtype.  The logits (N, V) are turned into their own gradient in place,
    so they exist once; where no gradient is wanted, at most MAX_LOGITS of them at a time.
    target (N,) int64.  Raises ValueError on a target outside the vocabulary.
    wrap: RWKV's "L2Wrap", a gradient without a loss: wrap * max(logits) / N on the largest logit of
    each row, which keeps logits from drifting up.
    """
    if torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (hidden, weight, bias)
    ):
        return _LinearCrossEntropy.apply(hidden, weight, bias, target, wrap)
    matrix = weight.to(hidden.dtype)
    rows = max(1, MAX_LOGITS // len(weight))
    parts = zip(hidden.split(rows), target.split(rows), strict=True)
    nll = [_softmax_gradient(_logits(part, matrix, bias), ids)[0] for part, ids in parts]
    return torch.cat(nll).mean()


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, target, wrap):
        matrix = weight.to(hidden.dtype)
        logits = _logits(hidden, matrix, bias)
        peak = logits.max(-1, keepdim=True) if wrap else None
        nll, dlogits = _softmax_gradient(logits, target)
        if peak is not None:
            dlogits.scatter_add_(1, peak.indices, peak.values * (wrap / len(logits)))
        ctx.save_for_backward(
            dlogits @ matrix,
            (dlogits.t() @ hidden).to(weight.dtype),
            None if bias is None else dlogits.sum(0, dtype=torch.float32).to(bias.dtype),
        )
        return nll.mean()

    @staticmethod
    def backward(ctx, grad):
        dhidden, dweight, dbias = ctx.saved_tensors
        dbias = None if dbias is None else dbias * grad
        return dhidden * grad.to(dhidden.dtype), dweight * grad, dbias, None, None


def _logits(hidden: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return hidden @ matrix.t()
    return torch.addmm(bias.to(hidden.dtype), hidden, matrix.t())


def _softmax_gradient(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    scale = 1.0 / logits.shape[0]
    if logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.bfloat16):
        nll = torch.empty(logits.shape[0])
        bits = logits.view(torch.uint16) if logits.dtype == torch.bfloat16 else logits
        fused.softmax_xent(scale, target.contiguous().numpy(), bits.numpy(), nll.numpy())
        return nll, logits
    log_p = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)
    nll = -log_p.gather(1, target[:, None])[:, 0]
    gradient = log_p.exp_()
    gradient.scatter_add_(1, target[:, None], -torch.ones_like(nll)[:, None])
    return nll, gradient.mul_(scale).to(logits.dtype)
