"""A torch model with the surface that scoring asks of a runtime model: states, forward, step.

Float32 and in evaluation mode; a state is a mutable holder of what the model returns.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from spiketrain.lm.dial import set_dial
from spiketrain.runtime.activity import Activity, LayerActivity
from spiketrain.runtime.dial import NO_DIAL


@dataclass(slots=True)
class TorchState:
    """One sequence's state: tensors (1, width) of each layer, and their names."""

    parts: Any
    names: tuple[str, ...] = field(default=())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Views of the tensors (width,); writing to them writes to the state."""
        flat = [part for layer in self.parts for part in layer]
        return {name: part[0].numpy() for name, part in zip(self.names, flat, strict=False)}

    def to_bytes(self) -> bytes:
        """The stored form, which `TorchModel.state_from_bytes` reads."""
        stored = io.BytesIO()
        torch.save(self.parts, stored)
        return stored.getvalue()


class TorchModel:
    """A LanguageModel as the runtime's Model: `forward` one sequence, `step` one token of several.

    eos_token_ids: where a text ends, which a checkpoint alone does not say. dial: of all sequences.
    """

    event_rows: tuple[int, ...] = ()  # unknown: torch skips no rows

    def __init__(
        self, model: PreTrainedModel, eos_token_ids: Sequence[int] = (), dial: float = NO_DIAL
    ) -> None:
        model.config.compute_dtype = "float32"
        self.torch = model.eval().float()
        set_dial(model, dial)
        self.dial = dial
        self.config: dict[str, Any] = model.config.to_dict()
        self.vocab_size = int(model.config.vocab_size)
        self.eos_token_ids = tuple(eos_token_ids)
        self.fingerprint = _fingerprint(self.torch)
        self.reset_activity()

    def new_state(self) -> TorchState:
        """The state before the first token."""
        with torch.no_grad():
            parts = self.torch.initial_state(1)
        copies = tuple(tuple(part.clone() for part in layer) for layer in parts)
        return TorchState(copies, self.torch.state_names)

    def state_from_bytes(self, blob: bytes) -> TorchState:
        """The state that `to_bytes` stored."""
        return TorchState(torch.load(io.BytesIO(blob), weights_only=True), self.torch.state_names)

    def forward(
        self, state: TorchState, token_ids: Any, last_only: bool = False
    ) -> NDArray[np.float32]:
        """Logits (T, V) after each of T tokens, or (V,) after the last; advances `state`."""
        ids = torch.as_tensor(np.asarray(token_ids, np.int64))[None]
        logits, state.parts = self._run(ids, state.parts, last_only)
        return logits[0, -1] if last_only else logits[0]

    def step(self, states: Sequence[TorchState], token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits (B, V) after one more token for each of B sequences; advances `states`."""
        layers = zip(*(state.parts for state in states), strict=True)
        joined = tuple(
            tuple(torch.cat(parts) for parts in zip(*layer, strict=True)) for layer in layers
        )
        ids = torch.as_tensor(np.asarray(token_ids, np.int64))[:, None]
        logits, after = self._run(ids, joined, last_only=False)
        for row, state in enumerate(states):
            state.parts = tuple(tuple(part[row : row + 1] for part in layer) for layer in after)
        return logits[:, 0]

    def activity(self) -> Activity:
        """Events and units of each place of spikes; nothing is known of rows and bytes."""
        layers = tuple(
            LayerActivity(f"events.{place}", neurons=units, events=events)
            for place, (events, units) in enumerate(self._fired.tolist())
        )
        return Activity(self._tokens, layers, ())

    @property
    def graded_events(self) -> bool:
        """Whether events have values of their own."""
        graded: bool = self.torch.graded_events
        return graded

    def reset_activity(self) -> None:
        """Set all counters to zero."""
        self._fired = np.zeros((len(self.torch.event_sizes), 2), np.int64)
        self._tokens = 0

    @torch.no_grad()
    def events(self, state: TorchState, token_ids: Any) -> list[NDArray[np.float32]]:
        """Events (T, H) of each place of spikes, over T tokens; advances `state`."""
        ids = torch.as_tensor(np.asarray(token_ids, np.int64))[None]
        _, state.parts, events = self.torch.features(ids, state.parts)
        return [fired[:, 0].float().numpy() for fired in events]

    @torch.no_grad()
    def _run(self, ids: Tensor, parts: Any, last_only: bool) -> tuple[NDArray[np.float32], Any]:
        """Tokens (B, T) -> logits (B, T or 1, V), the parts of the state after them."""
        features, parts, events = self.torch.features(ids, parts)
        for place, fired in enumerate(events):
            self._fired[place] += (int(torch.count_nonzero(fired)), fired.numel())
        self._tokens += ids.numel()
        logits = self.torch.logits(features[-1:] if last_only else features)
        return logits.transpose(0, 1).numpy(), parts


def _fingerprint(model: PreTrainedModel) -> str:
    """`torch-sha256:` of the config's fields and all weights, in the order of their names."""
    config = model.config.to_dict()
    names = sorted(set(model.config.statement.rules) - {"compute_dtype"})
    fields = {key: config[key] for key in ("model_type", *names)}
    digest = hashlib.sha256(json.dumps(fields).encode() + b"\n")
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return f"torch-sha256:{digest.hexdigest()}"
