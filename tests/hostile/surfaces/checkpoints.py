"""Checkpoints of others: a directory of settings and safetensors, and a file of torch.save."""

import json
from contextlib import contextmanager

from mutation import changed_bytes, changed_value, json_bytes

TARGET, BATCH, NEEDS = 1_000_000, 300, ("torch", "transformers", "safetensors")
SETTINGS = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}
TENSORS, OFFICIAL = "model.safetensors", "official.pth"


def prepare(folder):
    import torch
    from safetensors.torch import save_file

    from spiketrain.lm import checkpoint

    torch.set_num_threads(1)  # a fork has none of the threads of its parent
    place = folder / "checkpoint"
    place.mkdir()
    tensors = {
        "model.embed_tokens.weight": torch.ones(19, 16),
        "model.norm.weight": torch.ones(16),
    }
    save_file(tensors, place / TENSORS)
    official = {"emb.weight": torch.ones(19, 16), "blocks.0.ln1.weight": torch.ones(16)}
    torch.save(official, place / OFFICIAL)
    return checkpoint, place, (place / TENSORS).read_bytes(), (place / OFFICIAL).read_bytes()


def make(chance, seeds):
    """A letter for the kind, then the file, or settings and tensors."""
    _, _, tensors, official = seeds
    if chance.random() < 0.3:
        return b"f" + changed_bytes(chance, official)
    settings = json_bytes(changed_value(chance, SETTINGS))
    if chance.random() < 0.5:
        tensors = _changed_tensors(chance, tensors)
    return b"d" + len(settings).to_bytes(4, "little") + settings + tensors


def _changed_tensors(chance, tensors):
    size = int.from_bytes(tensors[:8], "little")
    if chance.random() < 0.5:
        return changed_bytes(chance, tensors)
    header = json_bytes(changed_value(chance, json.loads(tensors[8 : 8 + size])))
    return len(header).to_bytes(8, "little") + header + tensors[8 + size :]


@contextmanager
def open_calls(seeds):
    checkpoint, place, _, _ = seeds

    def call(data):
        if data[:1] == b"f":
            (place / OFFICIAL).write_bytes(data[1:])
            return checkpoint.read_checkpoint(place / OFFICIAL)
        end = 5 + int.from_bytes(data[1:5], "little")
        (place / "config.json").write_bytes(data[5:end])
        (place / TENSORS).write_bytes(data[end:])
        return checkpoint.read_checkpoint(place)

    yield call


def allowed():
    from spiketrain.lm.checkpoint_files import CheckpointError

    return (CheckpointError,)
