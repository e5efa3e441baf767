"""Config of a SpikeGPT language model: a Hugging Face config whose fields are checked at birth."""

from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedConfig as HFConfig

import spiketrain.lm.statement
from spiketrain.lm.statement import Statement
from spiketrain.runtime.families.spikegpt.spec import Spec
from spiketrain.runtime.fields import choice, flag, number, whole


@dataclass(kw_only=True)
class Training(spiketrain.lm.statement.Training):
    """Fields that a package does not have, and `rescale`, which is 0 there; see Config."""

    rescale: int = whole(0, default=0)
    train_neurons: bool = flag(False)
    threshold_scale: float = number(0.0, without_low=True, default=1.0)
    dropout: float = number(0.0, 1.0, without_high=True, default=0.0)
    l2_wrap: float = number(0.0, default=0.0)
    initialization: str = choice("standard", "rwkv", default="standard")
    carry: str = choice("state", "zero", default="state")


class Config(HFConfig):
    """Hyper-parameters of a SpikeGPT language model; every field is checked at birth.

    The fields of a package, with their ranges and defaults, are those of
    `spiketrain.runtime.families.spikegpt.Spec`:

    intermediate_size: units of a channel mix; None is 4 hidden_size.
    pre_ffn: block 0 has a second channel mix in place of its time mix.
    neuron_position: "residual", the published model, spikes of LIF units are added to the residual;
    "projections", every matrix reads signed spike counts, and nothing else spikes; "none", RWKV-4.
    binary_embedding: the embedding passes a Heaviside; None is true for "residual" alone.
    lif_tau: time constant of LIF units, in tokens.  lif_threshold: theirs where a checkpoint has
    none.

    Training adds:

    rescale: 0, or n for the arithmetic of the published inference script: what the branches of
    block i give is divided by 2^(i // n), and the residual is halved after every n blocks.
    train_neurons: whether thresholds and input scales of LIF units are trained.
    threshold_scale: start of the trained scalars of "projections", threshold over mean|input|.
    dropout: of the residual after each block, in training.
    l2_wrap: strength of the gradient that holds the largest logit down, in training.
    initialization: "standard" (torch's, what the published code does) or "rwkv" (zeros for what
    feeds gates and the residual, orthogonal otherwise).
    carry: what crosses a chunk border in training and evaluation, "state" or "zero" (published).
    """

    model_type = Spec.model_type
    statement: ClassVar[Statement] = Statement(
        Spec,
        Training,
        start={
            "vocab_size": 4096,
            "hidden_size": 384,
            "num_hidden_layers": 4,
            "intermediate_size": lambda values: 4 * values["hidden_size"],
            "binary_embedding": lambda values: values["neuron_position"] == "residual",
        },
    )

    def __init__(self, **told: Any) -> None:
        tied = told.pop("tie_word_embeddings", False)
        others = self.statement.fill(self, told)
        super().__init__(tie_word_embeddings=tied, **others)
        self.tie_word_embeddings = tied
