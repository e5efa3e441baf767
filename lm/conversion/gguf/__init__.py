"""A GGUF file becomes a SpikingBrain package, part by part and without torch.

spec.py says what the package is; exporter.py makes its tensors; rounding.py stores weights.
"""

from spiketrain.lm.conversion.gguf.exporter import GgufExporter
from spiketrain.lm.conversion.gguf.spec import WEIGHTS, gguf_spec
from spiketrain.lm.conversion.gguf.state_memory import check_state_memory

__all__ = ["WEIGHTS", "GgufExporter", "check_state_memory", "gguf_spec"]
