"""SpikingBrain: gated linear and window attention whose matrices read spike counts.

config.py says what a model is; model.py computes it, with its parts in attention.py,
feed_forward.py and neurons.py, the scans in linear_attention.py and window_attention.py, on a GPU
by gpu_kernels.py where it finds libraries; codes.py expands counts into trains; upstream.py reads
the published directories; export.py and formats.py write the runtime's tensors (arXiv 2509.05276).
"""

from transformers import AutoConfig, AutoModelForCausalLM

from spiketrain.lm.families.spikingbrain.config import Config
from spiketrain.lm.families.spikingbrain.export import Exporter, to_runtime
from spiketrain.lm.families.spikingbrain.formats import WEIGHT_FORMATS
from spiketrain.lm.families.spikingbrain.model import Model
from spiketrain.lm.families.spikingbrain.upstream import (
    from_upstream,
    load_published,
    upstream_config,
)

__all__ = [
    "WEIGHT_FORMATS",
    "Config",
    "Exporter",
    "Model",
    "from_upstream",
    "load_published",
    "to_runtime",
    "upstream_config",
]

AutoConfig.register("spikingbrain", Config)
AutoModelForCausalLM.register(Config, Model)
