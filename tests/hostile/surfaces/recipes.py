"""Recipes of training, as TOML."""

from contextlib import contextmanager

from mutation import changed_bytes, changed_text
from surfaces.settings import WORDS
from tiny_runs import FINE_TUNE, RECIPE

from spiketrain.training.config import ConfigError, load_config

TARGET, BATCH, NEEDS = 1_000_000, 3000, ("pydantic",)


def prepare(folder):
    return folder / "recipe.toml"


def make(chance, seeds):
    data = changed_text(chance, chance.choice((RECIPE, FINE_TUNE)), WORDS).encode()
    return changed_bytes(chance, data) if chance.random() < 0.2 else data


@contextmanager
def open_calls(seeds):
    def call(data):
        seeds.write_bytes(data)
        load_config(seeds)

    yield call


def allowed():
    return (ConfigError,)
