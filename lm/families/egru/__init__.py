"""EGRU language model: stacked event-based gated recurrent layers (arXiv 2206.06178).

config.py says what a model is, model.py computes it, upstream.py reads the published code's
checkpoints, fold.py makes every product read events, export.py writes the runtime's tensors.
"""

from transformers import AutoConfig, AutoModelForCausalLM

from spiketrain.lm.families.egru.config import Config
from spiketrain.lm.families.egru.export import WEIGHT_FORMATS, to_runtime
from spiketrain.lm.families.egru.fold import fold_projection
from spiketrain.lm.families.egru.model import Layer, Model
from spiketrain.lm.families.egru.upstream import from_upstream

__all__ = [
    "WEIGHT_FORMATS",
    "Config",
    "Layer",
    "Model",
    "fold_projection",
    "from_upstream",
    "to_runtime",
]

AutoConfig.register("egru", Config)
AutoModelForCausalLM.register(Config, Model)
