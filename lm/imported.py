"""Imported: a model from an upstream checkpoint, with the decisions of the import."""

from dataclasses import dataclass

from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Imported:
    """The model in evaluation mode; decisions: what it computes and why, a line each."""

    model: PreTrainedModel
    decisions: tuple[str, ...] = ()
