"""SpikeGPT: RWKV-4 with a binary embedding and leaky integrate-and-fire neurons over tokens.

spec.py says which tensors and which state a config stands for (checks.py: which configs there may
be), network.py hands the tensors to the compiled network. None of them opens a file.
"""

from spiketrain.runtime.families.spikegpt.network import Half, Model
from spiketrain.runtime.families.spikegpt.spec import Spec

__all__ = ["Half", "Model", "Spec"]
