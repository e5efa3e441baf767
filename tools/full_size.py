"""Write a stand-in of a published checkpoint: its names and full-size shapes, zeros for values.

python tools/full_size.py NAME FOLDER, with NAME one of spikegpt-216m, evnn-wikitext2,
spikingbrain-7b and w8aspike. `spiketrain convert --dry-run` on it checks what the release has to
pass. Large files are sparse: they take no room on disk where the file system allows it.
"""

import json
import sys
from math import prod
from pathlib import Path

Shapes = dict[str, tuple[int, ...]]

DTYPE_BYTES = {"BF16": 2, "F32": 4}
SPIKINGBRAIN = {
    "model_type": "gla_swa", "architectures": ["GLAswaForCausalLM"], "vocab_size": 152064,
    "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "intermediate_size": 18944, "hidden_act": "swish",
    "sliding_window": 4096, "norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": False,
    "max_position_embeddings": 131072, "use_short_conv": False, "attn_mode": "chunk",
    "attn_layers": list(range(1, 28, 2)), "bos_token_id": 151643, "eos_token_id": 151643,
}  # fmt: skip
EVNN = """rnn_type: egru
layers: 3
projection: false
emb_dim: 750
hidden_dim: 1350
bptt: 70
dropout_emb: 0.7
dropout_words: 0.1
dropout_forward: 0.25
dropout_connect: 0.7
alpha: 0
beta: 0
gamma: 0
pseudo_derivative_width: 3.6
"""


def spikegpt() -> Shapes:
    """Tensors of SpikeGPT-216M.pth."""
    layers, C, V = 18, 768, 50277
    shapes: Shapes = {"emb.weight": (V, C), "head.weight": (V, C)}
    norms = ["blocks.0.ln0", "ln_out"]
    norms += [f"blocks.{i}.ln{n}" for i in range(layers) for n in (1, 2)]
    for name in norms:
        shapes |= {f"{name}.weight": (C,), f"{name}.bias": (C,)}
    for i in range(layers):
        att, ffn = f"blocks.{i}.att", f"blocks.{i}.ffn"
        shapes |= {f"{att}.time_decay": (C,), f"{att}.time_first": (C,)}
        shapes |= {f"{att}.time_mix_{x}": (1, 1, C) for x in "kvr"}
        shapes |= {f"{att}.{x}.weight": (C, C) for x in ("key", "value", "receptance", "output")}
        shapes |= {f"{ffn}.time_mix_{x}": (1, 1, C) for x in "kr"}
        shapes |= {f"{ffn}.key.weight": (4 * C, C), f"{ffn}.value.weight": (C, 4 * C)}
        shapes[f"{ffn}.receptance.weight"] = (C, C)
    return shapes


def evnn() -> Shapes:
    """Tensors of EvNN's EGRU_best_model.cpt on WikiText-2."""
    V, e, sizes = 33278, 750, (1350, 1350, 750)
    shapes: Shapes = {"embeddings.weight": (V, e), "decoder.decoder.weight": (V, e)}
    shapes["decoder.decoder.bias"] = (V,)
    inputs = e
    for layer, H in enumerate(sizes):
        shapes |= {
            f"rnns.{layer}.kernel": (inputs, 3 * H),
            f"rnns.{layer}.recurrent_kernel": (H, 3 * H),
            f"rnns.{layer}.bias": (3 * H,),
            f"rnns.{layer}.recurrent_bias": (3 * H,),
            f"rnns.{layer}.thr": (H,),
        }
        for name in ("dampening_factor", "pseudo_derivative_support", "_max_norm"):
            shapes[f"rnns.{layer}.{name}"] = (1,)
        inputs = H
    return shapes


def spikingbrain(spiking: bool) -> Shapes:
    """Tensors of hf_7B_model, or of W8ASpike."""
    c = SPIKINGBRAIN
    D, F, V, group = c["hidden_size"], c["intermediate_size"], c["vocab_size"], 128
    d = D // c["num_attention_heads"]
    kv = c["num_key_value_heads"] * d
    shapes: Shapes = {"model.embeddings.weight": (V, D), "lm_head.weight": (V, D)}
    shapes["model.norm.weight"] = (D,)
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.{x}_norm.weight": (D,) for x in ("attn", "mlp")}
        linear: Shapes = {"attn.q_proj": (D, D), "attn.k_proj": (kv, D), "attn.v_proj": (kv, D)}
        shapes |= {f"{layer}.{name}.bias": shape[:1] for name, shape in linear.items()}
        linear |= {"attn.o_proj": (D, D), "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D)}
        linear["mlp.down_proj"] = (D, F)
        if i not in c["attn_layers"]:
            shapes[f"{layer}.attn.g_norm.weight"] = (d,)
            if spiking:
                linear["attn.gk_proj"] = (kv, D)
                shapes[f"{layer}.attn.gk_proj.bias"] = (kv,)
            else:
                shapes |= {f"{layer}.attn.gk_proj.0.weight": (16, D)}
                shapes |= {f"{layer}.attn.gk_proj.1.weight": (kv, 16)}
                shapes |= {f"{layer}.attn.gk_proj.1.bias": (kv,)}
        shapes |= {f"{layer}.{name}.weight": shape for name, shape in linear.items()}
        if spiking:
            for name, (out, inputs) in linear.items():
                shapes[f"{layer}.{name}.weight_quantizer.scales"] = (out, inputs // group, 1)
    return shapes


def write_torch(shapes: Shapes, path: Path) -> None:
    """What torch.save writes of a state_dict, in bfloat16."""
    import torch

    torch.save({name: torch.zeros(s, dtype=torch.bfloat16) for name, s in shapes.items()}, path)


def write_safetensors(shapes: Shapes, path: Path, dtype: str = "BF16") -> None:
    """A safetensors file whose data is a hole."""
    header, place = {}, 0
    for name, shape in shapes.items():
        size = prod(shape) * DTYPE_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + place)


def main(name: str, folder: Path) -> None:
    """Write the stand-in `name` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "spikegpt-216m":
        write_torch(spikegpt(), folder / "SpikeGPT-216M.pth")
    elif name == "evnn-wikitext2":
        write_torch(evnn(), folder / "EGRU_best_model.cpt")
        (folder / "config.yaml").write_text(EVNN)
    elif name in ("spikingbrain-7b", "w8aspike"):
        (folder / "config.json").write_text(json.dumps(SPIKINGBRAIN, indent=1))
        write_safetensors(spikingbrain(name == "w8aspike"), folder / "model.safetensors")
    else:
        sys.exit(f"NAME must be spikegpt-216m, evnn-wikitext2, spikingbrain-7b or w8aspike: {name}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
