"""Training of models: corpora, surrogate gradients, checkpoints and curves."""
