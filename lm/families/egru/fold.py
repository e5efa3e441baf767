"""Multiplies the projection into the head: every product of the model then reads events."""

import torch

from spiketrain.lm.families.egru.config import Config
from spiketrain.lm.families.egru.model import Model


@torch.no_grad()
def fold_projection(model: Model) -> Model:
    """The same function without a projection: head E P (V, H), bias E p + b, embeddings untied.

    The head of a model with projection reads a dense vector.  Folded, it reads the last layer's
    events and skips the rows of silent units, at the price of V (H_L - e) more weights to store.
    Raises ValueError if the model has no projection.
    """
    if model.projection is None:
        raise ValueError("projection must be true to be folded into the head, got false")
    fields = model.config.to_dict() | {"projection": False, "tie_word_embeddings": False}
    folded = Model(Config.from_dict(fields)).to(model.dtype)
    tensors = {
        k: v for k, v in model.state_dict().items() if not k.startswith(("projection", "head"))
    }
    head, projection = model.head, model.projection
    weight, bias = head.weight.double(), head.bias.double()
    tensors["head.weight"] = (weight @ projection.weight.double()).to(head.weight.dtype)
    tensors["head.bias"] = (weight @ projection.bias.double() + bias).to(head.bias.dtype)
    folded.load_state_dict(tensors)
    return folded.train(model.training)
