"""Tiny packages, and how tests change their files."""

import json

import numpy as np
import tiny

from spiketrain.runtime.package import read_package
from spiketrain.runtime.tensor_file import write_tensors

SIZES = {"hidden_sizes": (5, 4), "embedding_size": 4}


def make(path, **options):
    return tiny.tiny_egru_package(path, **{**SIZES, "vocab": 9, "with_tokenizer": False, **options})


def rewrite_config(package, change):
    config = json.loads((package / "config.json").read_text())
    change(config)
    (package / "config.json").write_text(json.dumps(config))


def split_tensor_file(package):
    raw = (package / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def rewrite_header(package, change):
    header, data = split_tensor_file(package)
    changed = change(header)
    text = json.dumps(header if changed is None else changed)
    raw = (text + " " * (-(8 + len(text)) % 64)).encode()
    (package / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + data)


def to_shards(package):
    """Split the tensor file in two and write the index."""
    tensors = {name: np.array(a) for name, a in read_package(package).tensors.items()}
    names = sorted(tensors)
    index = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        write_tensors(package / shard, {name: tensors[name] for name in part})
        index.update(dict.fromkeys(part, shard))
    (package / "model.safetensors").unlink()
    write_index(package, index)
    return index


def write_index(package, index):
    text = json.dumps({"metadata": {}, "weight_map": index})
    (package / "model.safetensors.index.json").write_text(text)
