"""Tiny packages of every family and format, for what holds for all of them."""

from tiny import tiny_egru_package
from tiny_spikegpt import tiny_spikegpt_package
from tiny_spikingbrain import tiny_spikingbrain_package

VOCAB = 101
EGRU = {"hidden_sizes": (24, 33, 16), "embedding_size": 16}
WIDE = {"hidden_sizes": (300, 530, 40), "embedding_size": 16}
GPT = {"hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 50}
BRAIN = {"num_hidden_layers": 2, "hidden_size": 24, "intermediate_size": 40}
MIXED = {"gate": "tied", "feature_map": "sigmoid", "parallel": True, "num_sink_tokens": 3}
EXPERTS = {"num_experts": 3, "moe_intermediate_size": 20, "dense_layers": [0]}
CODED = {"gate": "merged", "attention_spikes": True, "window_cache": "int8", "qk_norm": True}
PACKAGES = {
    "egru": tiny_egru_package,
    "spikegpt": tiny_spikegpt_package,
    "spikingbrain": tiny_spikingbrain_package,
}
KINDS = {
    "egru int8": EGRU,
    "egru float32": {**EGRU, "weights": "float32"},
    "egru bfloat16": {**EGRU, "weights": "bfloat16"},
    "egru projection": {**EGRU, "projection": True},
    "egru untied wide": {**WIDE, "tied": False},
    "spikegpt int8": GPT,
    "spikegpt float32 pre_ffn": {**GPT, "weights": "float32", "pre_ffn": True},
    "spikegpt bfloat16": {**GPT, "weights": "bfloat16"},
    "spikegpt int4 wide": {**GPT, "weights": "int4", "head": "int8", "hidden_size": 130},
    "spikegpt none": {**GPT, "neuron_position": "none", "binary_embedding": False},
    "spikegpt projections wide": {**GPT, "neuron_position": "projections", "hidden_size": 130},
    "spikegpt int4 projections": {**GPT, "weights": "int4", "neuron_position": "projections"},
    "spikegpt dial": {**GPT, "neuron_position": "projections", "max_dial": 4.0},
    "spikingbrain float32": {**BRAIN, "weights": "float32", "window_cache": "bfloat16"},
    "spikingbrain bfloat16 mixed": {**BRAIN, **MIXED, "weights": "bfloat16", "spikes": True},
    "spikingbrain int8-gi16 coded": {**BRAIN, **CODED, "weights": "int8-gi16"},
    "spikingbrain int8 experts": {**BRAIN, **EXPERTS, "weights": "int8", "head": "int4-gi"},
    "spikingbrain int4 wide": {**BRAIN, "weights": "int4-go", "hidden_size": 130},
    "spikingbrain int4 dense": {**BRAIN, "weights": "int4-gi", "spikes": False},
    "spikingbrain int4 dial": {**BRAIN, "weights": "int4-go", "max_dial": 4.0},
    "spikingbrain float32 dial": {
        **BRAIN,
        **MIXED,
        "weights": "float32",
        "spikes": True,
        "max_dial": 3.0,
    },
}


def write(path, kind):
    """Write the package of this kind and return its path."""
    family = kind.split()[0]
    return PACKAGES[family](path, vocab=VOCAB, with_tokenizer=False, **KINDS[kind])
