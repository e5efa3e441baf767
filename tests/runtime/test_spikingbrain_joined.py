"""Matrices that read the same spikes lie side by side in one row; nothing else changes."""

import numpy as np
import pytest
from tiny_spikingbrain import tiny_spikingbrain_package

from spiketrain.runtime import load_model
from spiketrain.runtime.families.spikingbrain import Spec, network, packing

WIDE = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
TIED, LOW_RANK, MERGED = ({"gate": gate} for gate in ("tied", "low_rank", "merged"))


def run(path):
    """Logits and counters of prompts, of steps together and of one by itself."""
    model = load_model(path, threads=2)
    states = [model.new_state() for _ in range(3)]
    found = [model.forward(state, list(range(i, 40 + i))) for i, state in enumerate(states)]
    found += [model.step(states, [1, 2, 3]).copy() for _ in range(3)]
    found.append(model.step(states[:1], [7]).copy())
    work = [(state.events, state.neurons, state.weight_bytes) for state in states]
    return model, np.concatenate(found), work, model.activity()


@pytest.mark.parametrize(
    ("weights", "fields", "joins"),
    [
        ("int8", LOW_RANK, 3),
        ("int8", TIED, 3),
        ("int8", MERGED, 3),
        ("int8-gi16", MERGED, 3),
        ("int4-go", {**WIDE, **MERGED}, 3),
        ("int4-go", {**WIDE, **LOW_RANK}, 3),
        ("int4-go", LOW_RANK, 0),  # rows that end inside a multiplier's outputs
        ("int8-gi16", {**TIED, "corrections": {"layers.1.attn.k_proj": 5}}, 2),
        ("bfloat16", LOW_RANK, 0),
    ],
)
def test_rows_side_by_side_give_the_bits_of_rows_apart(
    tmp_path, monkeypatch, weights, fields, joins
):
    path = tiny_spikingbrain_package(
        tmp_path / "model", with_tokenizer=False, weights=weights, vocab=61, **fields
    )
    model, logits, work, activity = run(path)
    spec = Spec.from_config(model.config)
    assert sum(bool(network.joined_matrices(spec, layer)) for layer in range(3)) == joins
    for module in (network, packing):
        monkeypatch.setattr(module, "joined_matrices", lambda *_: ())
    _, apart, work_apart, activity_apart = run(path)
    assert logits.tobytes() == apart.tobytes()
    assert work == work_apart
    assert activity == activity_apart
