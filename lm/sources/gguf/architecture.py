"""Keys of a GGUF file -> the fields of a config.json of the same network.

Key names and meanings: docs/gguf.md of ggml.  Nothing is built by these sizes before `layout`
compares them with the tensors.
"""

from collections.abc import Mapping
from typing import Any

from spiketrain.lm.sources.gguf.container import Container
from spiketrain.lm.sources.gguf.entries import Entry
from spiketrain.lm.sources.gguf.error import Unquoted
from spiketrain.lm.sources.gguf.metadata import Metadata
from spiketrain.lm.sources.gguf.rope import rope_parameters

ARCHITECTURES = ("llama", "qwen2", "qwen3")
EMBEDDING = "token_embd.weight"
HEAD = "output.weight"
_MAX_CONTEXT = 1 << 27  # no tensor bounds this size, and caches grow with it
_ARCHITECTURE = "general.architecture"
_QUANTIZATION = "general.quantization_version"
_QUANTIZATION_VERSION = 2
_NEUTRAL: dict[str, tuple[float, ...]] = {  # keys of networks that differ, and values that do not
    "logit_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "attention.scale": (0.0,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "rope.scaling.attn_factor": (1.0,),
}


def architecture_name(metadata: Metadata) -> str:
    """`general.architecture`.  Raises GgufError unless it is one of ARCHITECTURES."""
    name = metadata.text(_ARCHITECTURE)
    if name not in ARCHITECTURES:
        raise metadata.error(_ARCHITECTURE, f"be one of {', '.join(ARCHITECTURES)}", name)
    return name


def check_quantization(container: Container) -> None:
    """Refuse blocks of another version than the one that `blocks` reads."""
    if any(entry.format.group is not None for entry in container.entries.values()):
        version = container.metadata.integer(_QUANTIZATION, _QUANTIZATION_VERSION)
        if version != _QUANTIZATION_VERSION:
            rule = f"be {_QUANTIZATION_VERSION} in a file with quantised tensors"
            raise container.metadata.error(_QUANTIZATION, rule, version)


def transformer_settings(container: Container) -> dict[str, Any]:
    """Fields of the config.json of the same network.

    Raises GgufError naming the key that is missing, of another type, out of range, or that asks
    for a network which is not converted.
    """
    metadata = container.metadata
    name = architecture_name(metadata)
    _check_network(metadata, name)
    hidden = metadata.integer(f"{name}.embedding_length", least=1)
    heads = metadata.integer(f"{name}.attention.head_count", least=1)
    settings = {
        "model_type": name,
        "vocab_size": _vocab_size(container, name),
        "hidden_size": hidden,
        "intermediate_size": metadata.integer(f"{name}.feed_forward_length", least=1),
        "num_hidden_layers": metadata.integer(
            f"{name}.block_count", least=1, most=len(container.entries)
        ),
        "num_attention_heads": heads,
        "num_key_value_heads": _key_value_heads(metadata, name, heads),
        "head_dim": (head_dim := _head_dim(metadata, name, hidden, heads)),
        "max_position_embeddings": metadata.integer(
            f"{name}.context_length", least=1, most=_MAX_CONTEXT
        ),
        "rms_norm_eps": metadata.positive(f"{name}.attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": HEAD not in container.entries,
    }
    settings["rope_parameters"] = rope_parameters(container, name, head_dim)
    return settings


def _check_network(metadata: Metadata, name: str) -> None:
    """Refuse keys by which the network computes something else."""
    for key, neutral in _NEUTRAL.items():
        number = metadata.number(f"{name}.{key}", neutral[0])
        if number not in neutral:
            rule = f"be {' or '.join(f'{allowed:g}' for allowed in neutral)} or missing"
            raise metadata.error(f"{name}.{key}", rule, number)
    experts = metadata.integer(f"{name}.expert_count", 0)
    if experts:
        rule = "be 0, since a mixture of experts is not read"
        raise metadata.error(f"{name}.expert_count", rule, experts)
    for key, value in (("attention.causal", True), ("use_parallel_residual", False)):
        if metadata.flag(f"{name}.{key}", value) is not value:
            raise metadata.error(f"{name}.{key}", f"be {value}".lower(), not value)
    window = metadata.integer(f"{name}.attention.sliding_window", 0)
    if 0 < window < metadata.integer(f"{name}.context_length", least=1):
        rule = f"be 0 or at least {name}.context_length, since windows are not read"
        raise metadata.error(f"{name}.attention.sliding_window", rule, window)


def _vocab_size(container: Container, name: str) -> int:
    """Rows of the embedding, with which A.vocab_size has to agree."""
    entry = embedding(container.metadata, container.entries)
    stated = container.metadata.integer(f"{name}.vocab_size", entry.rows)
    if stated != entry.rows:
        rule = f"be the {entry.rows} rows of {EMBEDDING}"
        raise container.metadata.error(f"{name}.vocab_size", rule, stated)
    return entry.rows


def embedding(metadata: Metadata, entries: Mapping[str, Entry]) -> Entry:
    """The embedding's entry.  Raises GgufError if there is none, or if it is no matrix."""
    if EMBEDDING not in entries:
        raise metadata.error(EMBEDDING, "be in the file", Unquoted("no such tensor"))
    entry = entries[EMBEDDING]
    if len(entry.shape) != 2:
        raise metadata.error(EMBEDDING, "be a matrix", entry.shape)
    return entry


def _key_value_heads(metadata: Metadata, name: str, heads: int) -> int:
    key = f"{name}.attention.head_count_kv"
    groups = metadata.integer(key, heads, least=1)
    if heads % groups:
        raise metadata.error(key, f"divide the {heads} heads", groups)
    return groups


def _head_dim(metadata: Metadata, name: str, hidden: int, heads: int) -> int:
    """Channels of a head: stated for keys and values alike, or hidden size by heads."""
    key = f"{name}.attention.key_length"
    if key not in metadata and hidden % heads:
        rule = f"divide {name}.embedding_length {hidden}"
        raise metadata.error(f"{name}.attention.head_count", rule, heads)
    head_dim = metadata.integer(key, hidden // heads, least=1)
    for other in (f"{name}.attention.value_length", f"{name}.rope.dimension_count"):
        if (value := metadata.integer(other, head_dim)) != head_dim:
            raise metadata.error(other, f"be the {head_dim} channels of a head", value)
    if head_dim % 2:
        raise metadata.error(key, "be even, since channels rotate in pairs", head_dim)
    return head_dim
