"""EGRU language model: stacked event-based gated recurrent layers (arXiv 2206.06178).

config.py says what a model is, model.py computes it, upstream.py reads the published code's
checkpoints, fold.py makes every product read events, export.py writes the runtime's tensors.
"""

from transformers import AutoConfig, AutoModelForCausalLM

from lm.families.egru.config import Config
from lm.families.egru.export import WEIGHT_FORMATS, to_runtime
from lm.families.egru.fold import fold_projection
from lm.families.egru.model import Layer, Model
from lm.families.egru.upstream import from_upstream

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
