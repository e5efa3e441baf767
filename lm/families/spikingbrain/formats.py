"""The weight format of each class of matrices in the package of a SpikingBrain."""

from dataclasses import dataclass

from spiketrain.lm.families.spikingbrain.config import Config
from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.formats import FLOATS, stored_format

WEIGHT_FORMATS = (*FLOATS, "int8", "int4")
_EMBEDDINGS = {"int4": "int8"}  # other formats are their own


@dataclass(frozen=True, slots=True)
class Formats:
    """Format of each class of matrices, and what is said of fidelity."""

    embedding: str
    body: str
    down: str
    head: str
    fidelity: str

    @classmethod
    def of(cls, config: Config, weights: str, head: str | None = None) -> "Formats":
        """Formats of a package asked for in `weights` (and `head`): float32, bfloat16, int8, int4.

        int4 has its groups along the outputs where spikes are read, else along the inputs.  int8 of
        a model with int8 weights of its own (W8ASpike) keeps them, and everything else in float32:
        the published model, exactly.
        """
        group = config.quant_weight_group_size
        real = weights in FLOATS
        keeps_codes = weights == "int8" and group is not None
        if keeps_codes and group is not None and group % 4:
            raise SpiketrainError(f"quant_weight_group_size must be a multiple of 4, got {group}")
        body = f"int8-gi{group}" if keeps_codes else stored_format(weights, config.spikes)
        raw = config.spikes and config.down_proj == "published" and not real
        rest = "float32" if keeps_codes else weights
        return cls(
            embedding=_EMBEDDINGS.get(rest, rest),
            body=body,
            down="float32" if raw else body,
            head=stored_format(rest if head is None else head, by_rows=False),
            fidelity="exact" if real or keeps_codes else "integer",
        )

    @property
    def classes(self) -> dict[str, str]:
        """The `weights` object of the package."""
        return {
            "embedding": self.embedding,
            "body": self.body,
            "down": self.down,
            "head": self.head,
        }
