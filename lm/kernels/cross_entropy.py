"""Linear head and softmax cross-entropy in one: gradients are made in the forward pass."""

import torch
from torch import Tensor

import lm.kernels.fused as fused


def linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats of hidden (N, F) @ weight (V, F)^T + bias (V,).

    Products run in hidden's dtype.  The logits (N, V) are turned into their own gradient in place,
    so they exist once.  target (N,) int64.  Raises ValueError on a target outside the vocabulary.
    """
    return _LinearCrossEntropy.apply(hidden, weight, bias, target)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, target):
        matrix = weight.to(hidden.dtype)
        logits = torch.addmm(bias.to(hidden.dtype), hidden, matrix.t())
        nll, dlogits = _softmax_gradient(logits, target)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(
                dlogits @ matrix,
                (dlogits.t() @ hidden).to(weight.dtype),
                dlogits.sum(0, dtype=torch.float32).to(bias.dtype),
            )
        return nll.mean()

    @staticmethod
    def backward(ctx, grad):
        dhidden, dweight, dbias = ctx.saved_tensors
        return dhidden * grad.to(dhidden.dtype), dweight * grad, dbias * grad, None


def _softmax_gradient(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    scale = 1.0 / logits.shape[0]
    if logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.bfloat16):
        nll = torch.empty(logits.shape[0])
        bits = logits.view(torch.uint16) if logits.dtype == torch.bfloat16 else logits
        fused.softmax_xent(scale, target.contiguous().numpy(), bits.numpy(), nll.numpy())
        return nll, logits
    log_p = torch.log_softmax(logits.float(), -1)
    nll = -log_p.gather(1, target[:, None])[:, 0]
    gradient = log_p.exp_()
    gradient.scatter_add_(1, target[:, None], -torch.ones_like(nll)[:, None])
    return nll, gradient.mul_(scale).to(logits.dtype)
