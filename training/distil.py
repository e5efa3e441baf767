"""A teacher reads what its student reads, and says how far the student is from it."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from spiketrain.training.config import ConfigError, DistilConfig


class Teacher:
    """A frozen model that reads the same lanes as the student (knowledge distillation).

    Hinton, Vinyals, Dean, arXiv 1503.02531: the student's distribution is drawn to the teacher's,
    both softened by the temperature; the divergence counts temperature^2 times.
    """

    def __init__(self, model: torch.nn.Module, config: DistilConfig, batch: int) -> None:
        self.model = model.eval().requires_grad_(False)
        self.config = config
        self.state = model.initial_state(batch)
        self._after = self.state
        self._attention: list[tuple[Tensor, Tensor]] = []  # of each layer: what it reads and gives
        if config.attention:
            _check_layers(model)
            for block in model.model.layers:
                block.attn.register_forward_hook(
                    lambda _, inputs, out: self._attention.append((inputs[0], out[0]))
                )

    def divergence(self, input_ids: Tensor, student: Tensor) -> Tensor:
        """Mean KL(teacher, student) in nats; student: logits (T, B, V) after input_ids (B, T)."""
        heat = self.config.temperature
        self._attention.clear()
        with torch.no_grad():
            features, self._after, _ = self.model.features(input_ids, self.state)
            teacher_log_p = torch.log_softmax(self.model.logits(features).float() / heat, -1)
        student_log_p = torch.log_softmax(student.float() / heat, -1)
        each = F.kl_div(student_log_p, teacher_log_p, reduction="sum", log_target=True)
        return each * heat**2 / input_ids.numel()

    def attention_gap(self, student: torch.nn.Module) -> Tensor:
        """Mean over the layers of |student's attention - teacher's|^2 / |teacher's|^2.

        Both read what the teacher's attention read when `divergence` was last asked, from the start
        of the chunk.
        """
        _check_layers(student)
        gaps = []
        for block, (x, target) in zip(student.model.layers, self._attention, strict=True):
            output, _ = block.attn(x, block.attn.initial_state(len(x), block.attn_norm.weight), [])
            gap = (output.float() - target.float()).square().mean()
            gaps.append(gap / target.float().square().mean().clamp_min(1e-12))
        return torch.stack(gaps).mean()

    def go_on(self, kept: Tensor) -> None:
        """Take the state after the last chunk; lanes that are not kept (B, 1) start anew."""
        self.state = next_state(self.model, self._after, kept)


def _check_layers(model: torch.nn.Module) -> None:
    if not hasattr(getattr(model, "model", None), "layers"):
        raise ConfigError(
            "distil.attention must be 0 unless teacher and student are Transformers or their "
            f"copies, got {type(model).__module__}"
        )


def next_state(model, state, kept: Tensor):
    """What the next chunk starts from; lanes that are not kept (B, 1) start anew."""
    fresh = model.initial_state(len(kept))
    return tuple(
        tuple(torch.where(kept, *parts) for parts in zip(*layers, strict=True))
        for layers in zip(model.carried(state), fresh, strict=True)
    )
