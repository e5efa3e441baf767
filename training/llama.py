"""A small Llama language model as a teacher, trained by the same loop, kept as Hugging Face does.

Attention sees the `context` tokens of a chunk: run.steps should be as long.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file

from spiketrain.lm.conversion.transformer_names import their_name
from spiketrain.lm.conversion.transformer_settings import transformer_config
from spiketrain.lm.families import spikingbrain


class Config(BaseModel):
    """Sizes of a Llama, under Hugging Face's names; context: max_position_embeddings."""

    model_config = ConfigDict(extra="forbid")
    vocab_size: int = Field(ge=1)
    hidden_size: int = Field(ge=2)
    num_hidden_layers: int = Field(ge=1)
    num_attention_heads: int = Field(ge=1)
    num_key_value_heads: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    context: int = Field(ge=2)
    rms_norm_eps: float = Field(1e-6, gt=0)
    rope_theta: float = Field(10_000.0, gt=0)
    tie_word_embeddings: bool = True
    compute_dtype: str = "float32"


class Model(spikingbrain.Model):
    """Llama, which is SpikingBrain with full attention alone; it has no biases to train."""

    def __init__(self, config: Config) -> None:
        self.settings = settings(config)
        decoder_config = transformer_config(self.settings)
        decoder_config.compute_dtype = config.compute_dtype
        super().__init__(decoder_config)
        for name, parameter in self.named_parameters():
            if name.endswith("_proj.bias"):
                parameter.requires_grad_(False)

    def save_pretrained(self, folder: Path, **unused: Any) -> None:
        """Write a directory that transformers reads as LlamaForCausalLM."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.settings, indent=1) + "\n")
        tied = self.settings["tie_word_embeddings"]
        tensors = {
            their_name(name): value.contiguous()
            for name, value in self.state_dict().items()
            if not name.endswith("_proj.bias") and not (tied and name == "lm_head.weight")
        }
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def settings(config: Config) -> dict[str, Any]:
    """config.json of this model as a Hugging Face directory."""
    fields = config.model_dump(exclude={"context", "compute_dtype"})
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        **fields,
        "max_position_embeddings": config.context,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "float32",
    }
