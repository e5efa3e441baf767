"""SpikeGPT: RWKV-4 with a binary embedding and spiking neurons over tokens (arXiv 2302.13939).

config.py says what a model is; model.py computes it, with its parts in mixes.py and neurons.py;
upstream.py reads the published checkpoints and those of RWKV-4; export.py writes the runtime's
tensors.
"""

from transformers import AutoConfig, AutoModelForCausalLM

from spiketrain.lm.families.spikegpt.config import Config
from spiketrain.lm.families.spikegpt.export import WEIGHT_FORMATS, to_runtime
from spiketrain.lm.families.spikegpt.model import Model
from spiketrain.lm.families.spikegpt.upstream import from_hugging_face, from_upstream, is_upstream

__all__ = [
    "WEIGHT_FORMATS",
    "Config",
    "Model",
    "from_hugging_face",
    "from_upstream",
    "is_upstream",
    "to_runtime",
]

AutoConfig.register("spikegpt", Config)
AutoModelForCausalLM.register(Config, Model)
