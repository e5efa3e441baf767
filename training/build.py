"""A recipe's [model] section becomes a fresh model."""

import importlib

import lm.families
from training.config import ConfigError, TrainConfig

DENSE = ("lstm", "gru", "llama")  # yardsticks and teachers, modules beside this one


def build_model(config: TrainConfig, vocab_size: int):
    """A fresh model of config.model["family"]: a family of `lm`, or a dense one."""
    fields = dict(config.model)
    family = fields.pop("family", None)
    if family in DENSE:
        module = importlib.import_module(f"training.{family}")
    elif family in lm.families.NAMES:
        module = importlib.import_module(f"lm.families.{family}")
    else:
        known = (*lm.families.NAMES, *DENSE)
        raise ConfigError(f"model.family must be one of {known}, got {family!r}")
    fields |= {"vocab_size": vocab_size, "compute_dtype": config.run.precision}
    try:
        return module.Model(module.Config(**fields))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from error
