"""Kernels that go over vectors: functions, neurons, parts of mixers, draws from logits."""
