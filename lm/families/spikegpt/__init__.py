"""SpikeGPT: RWKV-4 with a binary embedding and spiking neurons over tokens (arXiv 2302.13939).

config.py says what a model is; model.py computes it, with its parts in mixes.py and neurons.py.
"""

from transformers import AutoConfig, AutoModelForCausalLM

from lm.families.spikegpt.config import Config
from lm.families.spikegpt.model import Model

__all__ = ["Config", "Model"]

AutoConfig.register("spikegpt", Config)
AutoModelForCausalLM.register(Config, Model)
