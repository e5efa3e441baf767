"""What a model does (NumPy, Cython)."""

from runtime.activity import Activity, LayerActivity
from runtime.errors import PackageError, SpiketrainError, StateError
from runtime.model import Model, load_model
from runtime.state import State

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
