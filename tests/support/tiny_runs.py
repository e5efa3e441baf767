"""Recipes of tiny runs: an EGRU, and teachers of conversions with a fine-tuning."""

from corpus_text import corpus_text

RECIPE = """
name = "tiny"
[model]
family = "egru"
embedding_size = 16
hidden_sizes = [24, 16]
initial_preactivation = 0.5
[data]
train = "tales.txt"
valid = "tales.txt"
vocab_size = 300
[run]
tokens = 512
batch = 4
steps = 16
threads = 1
precision = "float32"
evaluate_tokens = 200
"""
GRU = """
family = "gru"
embedding_size = 16
hidden_size = 20
num_hidden_layers = 2
"""
FINE_TUNE = """
name = "fine"
[model]
family = "egru"
pseudo_derivative_floor = 0.2
[data]
train = "tales.txt"
valid = "tales.txt"
[optimizer]
learning_rate = 2e-3
warmup_tokens = 0
[distil]
teacher = ""
[run]
tokens = 1024
batch = 4
steps = 16
threads = 1
precision = "float32"
"""
RWKV = """
family = "spikegpt"
hidden_size = 16
num_hidden_layers = 2
neuron_position = "none"
"""


def write_recipe(folder):
    """The recipe of a tiny EGRU in `folder`, beside its text."""
    (folder / "tales.txt").write_text(corpus_text(3))
    (folder / "recipe.toml").write_text(RECIPE)
    return folder / "recipe.toml"


def with_model(recipe, model, tokens=512):
    """Replace the [model] of the recipe and its length."""
    start = RECIPE.index("family"), RECIPE.index("[data]")
    rest = RECIPE[start[1] :].replace("512", str(tokens))
    recipe.write_text(RECIPE[: start[0]] + model + rest)
