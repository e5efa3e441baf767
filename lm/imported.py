"""A model read from someone else's checkpoint, with what was decided about it on the way."""

from dataclasses import dataclass

from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Imported:
    """The model in evaluation mode; decisions: what it computes and why, a line each."""

    model: PreTrainedModel
    decisions: tuple[str, ...] = ()
