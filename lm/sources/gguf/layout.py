"""Which tensors a GGUF file must have, and what Hugging Face calls each of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spiketrain.lm.sources.gguf.architecture import EMBEDDING, HEAD
from spiketrain.lm.sources.gguf.container import Container
from spiketrain.lm.sources.gguf.entries import Entry
from spiketrain.lm.sources.gguf.error import Unquoted
from spiketrain.lm.sources.gguf.rope import FACTORS

_PROJECTIONS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_VECTOR_FORMATS = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor of the network: its entry in the file, and how its rows lie there.

    interleaved: channels of a head of the network whose rows the file has in the order 0, d/2, 1,
    d/2 + 1, ...; 0 where rows lie as the network has them.
    """

    entry: Entry
    interleaved: int = 0


def layout(container: Container, settings: Mapping[str, Any]) -> dict[str, Place]:
    """Hugging Face name -> place of every tensor, in the network's order.

    Raises GgufError naming a tensor that is missing, unknown, of another shape, or a vector that
    is quantised.
    """
    metadata, entries = container.metadata, container.entries
    places: dict[str, Place] = {}
    unknown = set(entries) - (set(FACTORS) if settings["model_type"] == "llama" else set())
    for name, theirs, shape, interleaved in _expected(settings):
        if name not in entries:
            raise metadata.error(name, "be in the file", Unquoted("no such tensor"))
        entry = entries[name]
        if entry.shape != shape:
            raise metadata.error(name, f"have the shape {shape}", entry.shape)
        if len(shape) == 1 and entry.format.name not in _VECTOR_FORMATS:
            rule = f"be of type {', '.join(_VECTOR_FORMATS)}"
            raise metadata.error(name, rule, Unquoted(entry.format.name))
        unknown.remove(name)
        places[theirs] = Place(entry, interleaved)
    if unknown:
        rule = f"be a tensor of a {settings['model_type']}"
        raise metadata.error(min(unknown), rule, Unquoted("a tensor without a place"))
    return places


_Expected = tuple[str, str, tuple[int, ...], int]


def _expected(settings: Mapping[str, Any]) -> Iterator[_Expected]:
    """Name in the file, Hugging Face's name, shape, and channels of interleaved heads."""
    hidden, vocabulary = settings["hidden_size"], settings["vocab_size"]
    yield EMBEDDING, "model.embed_tokens.weight", (vocabulary, hidden), 0
    for i in range(settings["num_hidden_layers"]):
        for name, theirs, shape, interleaved in _block(settings):
            yield f"blk.{i}.{name}", f"model.layers.{i}.{theirs}", shape, interleaved
    yield "output_norm.weight", "model.norm.weight", (hidden,), 0
    if not settings["tie_word_embeddings"]:
        yield HEAD, "lm_head.weight", (vocabulary, hidden), 0


def _block(settings: Mapping[str, Any]) -> Iterator[_Expected]:
    kind, hidden, width = (settings[name] for name in ("model_type", "hidden_size", "head_dim"))
    for name, theirs in _NORMS.items():
        yield f"{name}.weight", f"{theirs}.weight", (hidden,), 0
    for name, shape in _matrices(settings).items():
        theirs = _PROJECTIONS[name]
        rotated = name in ("attn_q", "attn_k")
        yield f"{name}.weight", f"{theirs}.weight", shape, width * (rotated and kind == "llama")
        if kind == "qwen2" and (rotated or name == "attn_v"):
            yield f"{name}.bias", f"{theirs}.bias", shape[:1], 0
    if kind == "qwen3":
        for name, theirs in _HEAD_NORMS.items():
            yield f"{name}.weight", f"{theirs}.weight", (width,), 0


def _matrices(settings: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Shape (outputs, inputs) of each matrix of a block."""
    hidden, inner = settings["hidden_size"], settings["intermediate_size"]
    queries = settings["num_attention_heads"] * settings["head_dim"]
    keys = settings["num_key_value_heads"] * settings["head_dim"]
    return {
        "attn_q": (queries, hidden),
        "attn_k": (keys, hidden),
        "attn_v": (keys, hidden),
        "attn_output": (hidden, queries),
        "ffn_gate": (inner, hidden),
        "ffn_up": (inner, hidden),
        "ffn_down": (hidden, inner),
    }
