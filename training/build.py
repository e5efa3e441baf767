"""A recipe's [model] section becomes a fresh model."""

import importlib

import spiketrain.lm.families
from spiketrain.training.config import ConfigError, TrainConfig

DENSE = ("lstm", "gru", "llama")  # yardsticks and teachers, modules beside this one


def build_model(config: TrainConfig, vocab_size: int):
    """A fresh model of config.model["family"]: a family of `lm`, or a dense one.

    vocab_size: the tokenizer's; config.model["vocab_size"] may be more, as in padded checkpoints.
    """
    fields = dict(config.model)
    family = fields.pop("family", None)
    if family in DENSE:
        module = importlib.import_module(f"spiketrain.training.{family}")
    elif family in spiketrain.lm.families.NAMES:
        module = importlib.import_module(f"spiketrain.lm.families.{family}")
    else:
        known = (*spiketrain.lm.families.NAMES, *DENSE)
        raise ConfigError(f"model.family must be one of {known}, got {family!r}")
    fields = {"vocab_size": vocab_size} | fields | {"compute_dtype": config.run.precision}
    if fields["vocab_size"] < vocab_size:
        rule = f"must be at least the tokenizer's {vocab_size}"
        raise ConfigError(f"model.vocab_size {rule}, got {fields['vocab_size']}")
    try:
        return module.Model(module.Config(**fields))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from error
