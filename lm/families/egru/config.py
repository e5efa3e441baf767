"""Config of an EGRU language model: a Hugging Face config whose fields are checked at birth."""

from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedConfig as HFConfig

import spiketrain.lm.statement
from spiketrain.lm.statement import Statement
from spiketrain.runtime.families.egru.spec import Spec, check_relations
from spiketrain.runtime.fields import Maybe, Number, choice, flag, number, stated


def _share() -> Any:
    return number(0.0, 1.0, without_high=True, default=0.0)


@dataclass(kw_only=True)
class Training(spiketrain.lm.statement.Training):
    """Fields that a package does not have; see Config."""

    threshold_mean: float = number(0.0, 1.0, without_low=True, without_high=True, default=0.01)
    train_thresholds: bool = flag(False)
    initial_preactivation: float | None = stated(Maybe(Number(0.0)), None)
    initial_update_bias: float = number(float("-inf"), default=0.0)
    pseudo_derivative_damp: float = number(float("-inf"), default=1.0)
    pseudo_derivative_support: float = number(float("-inf"), default=1.0)
    pseudo_derivative_floor: float | None = stated(Maybe(Number(float("-inf"))), None)
    dropout_words: float = _share()
    dropout_embedding: float = _share()
    dropout_forward: float = _share()
    dropout_connect: float = _share()
    dropout_decoder: float = _share()
    dropout_shared: str = choice("batch", "time", default="batch")


class Config(HFConfig):
    """Hyper-parameters of an EGRU language model; every field is checked at birth.

    The fields of a package, with their ranges and defaults, are those of
    `spiketrain.runtime.families.egru.Spec`:

    hidden_sizes: units per layer; the last equals embedding_size in a tied model without
    projection.  projection: a linear map from the last layer to embedding_size before the head.
    carry: what crosses a chunk border in training and evaluation, "state" (cell and output) or
    "output" (published code: the cell restarts at zero).

    Training adds:

    pseudo_derivative_damp, _support: height and inverse half-width of the surrogate gradient;
    _floor: least event value it is multiplied by, None the cell's own as published (see
    `spiketrain.lm.spikes.graded`).
    train_thresholds: whether theta is a trained parameter; it starts from Beta(a, 3) with mean
    threshold_mean.  initial_preactivation: standard deviation that input products start with;
    None keeps the published Xavier values, which small models are slow to leave.
    initial_update_bias: start of the update gate's bias; above 0, cells remember longer.
    dropout_*: probabilities in training; `dropout_shared` names the axis that one variational mask
    is shared over, "batch" (published code) or "time" (AWD-LSTM).
    """

    model_type = Spec.model_type
    statement: ClassVar[Statement] = Statement(
        Spec,
        Training,
        start={"vocab_size": 4096, "embedding_size": 384, "hidden_sizes": (896, 384)},
    )

    def __init__(self, **told: Any) -> None:
        others = self.statement.fill(self, told)
        check_relations(self)
        for name, value in (
            ("hidden_size", self.embedding_size),
            ("num_hidden_layers", len(self.hidden_sizes)),
        ):
            others.pop(name, None)  # a stored config has what other fields tell
            setattr(self, name, value)
        tied: bool = vars(self)["tie_word_embeddings"]
        super().__init__(tie_word_embeddings=tied, **others)
        self.tie_word_embeddings = tied
