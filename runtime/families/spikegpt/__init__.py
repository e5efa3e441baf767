"""SpikeGPT: RWKV-4 with a binary embedding and leaky integrate-and-fire neurons over tokens.

spec.py states fields, tensors and state; operations.py says what is computed; network.py hands the
tensors to the compiled network. None of them opens a file.
"""

from spiketrain.runtime.families.spikegpt.network import Model, Sublayer
from spiketrain.runtime.families.spikegpt.spec import Spec
from spiketrain.runtime.family import Family

__all__ = ["FAMILY", "Model", "Spec", "Sublayer"]

FAMILY = Family(Spec, Model)
