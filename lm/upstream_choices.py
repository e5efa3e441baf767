"""UpstreamChoices: the answers that a caller gives where a checkpoint's files give none."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class UpstreamChoices:
    """Answers to questions that a checkpoint leaves open; see lm.families.spikegpt.upstream.

    semantics: of an official SpikeGPT or RWKV-4 file; None is "spikegpt".  choices: config fields
    of another revision.  rescaled: a Hugging Face RWKV-4 was saved after a pass in evaluation.
    window_keys, down_proj: of a published SpikingBrain, see lm.families.spikingbrain.upstream.
    """

    semantics: str | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)
    rescaled: bool = False
    window_keys: int | None = None
    down_proj: str | None = None

    def check_taken(self, taken: tuple[str, ...]) -> None:
        """Raise ValueError for a field outside `taken` that is set: no reader would heed it."""
        for name in (entry.name for entry in fields(self)):
            value = getattr(self, name)
            if value and name not in taken:
                raise ValueError(
                    f"{name} says nothing about this kind of checkpoint, got {value!r}"
                )
