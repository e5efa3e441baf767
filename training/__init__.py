"""How a model is fitted: corpora, surrogate-gradient training, its checkpoints and its curves."""
