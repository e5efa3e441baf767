"""SpikingBrain: gated linear and window attention with SwiGLU, matrices that read spike counts.

spec.py says which tensors and which state a config stands for, with layout.py for matrices and
window.py for states; packing.py places the tensors, network.py hands them to the compiled network.
None opens a file.
"""

from spiketrain.runtime.families.spikingbrain.network import Expert, Layer, Model, Shape
from spiketrain.runtime.families.spikingbrain.packing import Product
from spiketrain.runtime.families.spikingbrain.spec import Spec

__all__ = ["Expert", "Layer", "Model", "Product", "Shape", "Spec"]
