"""SpikingBrain: gated linear and window attention with SwiGLU, matrices that read spike counts.

spec.py states fields, tensors and state, with layers.py for the kinds of layers, checks.py for
which fields and formats go together, and window.py for states; operations.py says what is computed;
packing.py places the tensors, network.py hands them to the compiled network. None opens a file.
"""

from spiketrain.runtime.families.spikingbrain.network import Expert, Layer, Model, Shape
from spiketrain.runtime.families.spikingbrain.packing import Product
from spiketrain.runtime.families.spikingbrain.spec import Spec
from spiketrain.runtime.family import Family

__all__ = ["FAMILY", "Expert", "Layer", "Model", "Product", "Shape", "Spec"]

FAMILY = Family(Spec, Model)
