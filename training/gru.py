"""A dense GRU language model, the artificial network that `gru-to-egru` converts.

torch's own GRU, and the names of PyTorch's word-language-model example (encoder, rnn, decoder).
"""

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from torch import Tensor, nn

from spiketrain.lm.kernels.cross_entropy import linear_cross_entropy

EMBEDDING_STD = 0.1


class Config(BaseModel):
    """Sizes of the model; the head is not tied."""

    model_config = ConfigDict(extra="forbid")
    model_type: str = "gru"
    vocab_size: int = Field(ge=1)
    embedding_size: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1)
    compute_dtype: str = "float32"


class Model(nn.Module):
    """Embedding, stacked GRU, head; products in bfloat16 if the config says so."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        hidden, depth = config.hidden_size, config.num_hidden_layers
        self.encoder = nn.Embedding(config.vocab_size, config.embedding_size)
        self.rnn = nn.GRU(config.embedding_size, hidden, depth)
        self.decoder = nn.Linear(hidden, config.vocab_size)
        nn.init.normal_(self.encoder.weight, std=EMBEDDING_STD)
        nn.init.normal_(self.decoder.weight, std=EMBEDDING_STD)
        nn.init.zeros_(self.decoder.bias)

    @property
    def event_sizes(self) -> tuple[int, ...]:
        """Units of the last layer; torch gives no other layer's outputs."""
        return (self.config.hidden_size,)

    def initial_state(self, batch: int):
        """Zero outputs (B, H), one a layer."""
        device = self.encoder.weight.device
        zeros = torch.zeros(batch, self.config.hidden_size, device=device)
        return tuple((zeros.clone(),) for _ in range(self.config.num_hidden_layers))

    def carried(self, state):
        """The state without its history."""
        return tuple((h.detach(),) for (h,) in state)

    def features(self, input_ids: Tensor, state=None, event_costs=None):
        """input_ids (B, T) -> outputs (T, B, H) for the head, state, outputs again as a list."""
        state = self.initial_state(input_ids.shape[0]) if state is None else state
        low = self.config.compute_dtype == "bfloat16"
        with torch.autocast(input_ids.device.type, torch.bfloat16, enabled=low):
            x = self.encoder(input_ids.t())
            out, last = self.rnn(x, torch.stack([h for (h,) in state]).to(x.dtype))
        out = out.to(torch.bfloat16) if low else out
        return out, tuple((h.float(),) for h in last), [out]

    def logits(self, features: Tensor) -> Tensor:
        """Features (T, B, H) -> logits (T, B, V) in float32."""
        weight, bias = (p.to(features.dtype) for p in self.decoder.parameters())
        return nn.functional.linear(features, weight, bias).float()

    def mean_nll(self, features: Tensor, targets: Tensor) -> Tensor:
        """Mean loss in nats of features (T, B, H) against targets (B, T)."""
        return linear_cross_entropy(
            features.flatten(0, 1), self.decoder.weight, self.decoder.bias, targets.t().flatten()
        )

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(self.config.model_dump_json(indent=2) + "\n")
        tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")
