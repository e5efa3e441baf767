"""EGRU: stacked gated recurrent layers whose units send graded events.

spec.py states fields, tensors and state; network.py hands the tensors to the compiled network.
Neither opens a file.
"""

from spiketrain.runtime.families.egru.network import Model
from spiketrain.runtime.families.egru.spec import Spec
from spiketrain.runtime.family import Family

__all__ = ["FAMILY", "Model", "Spec"]

FAMILY = Family(Spec, Model)
