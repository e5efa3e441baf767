"""The runtime computes models (NumPy, Cython)."""

from spiketrain.runtime.activity import Activity, LayerActivity
from spiketrain.runtime.errors import PackageError, SpiketrainError, StateError
from spiketrain.runtime.model import Model, load_model
from spiketrain.runtime.state import State

__all__ = [
    "Activity",
    "LayerActivity",
    "Model",
    "PackageError",
    "SpiketrainError",
    "State",
    "StateError",
    "load_model",
]
