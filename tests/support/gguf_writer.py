"""A GGUF file of a tiny llama, written from scratch so that a test can change any part of it."""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
F32_TENSOR, F16_TENSOR = 0, 1
_PACKED = {0: "<B", 1: "<b", 2: "<H", 3: "<h", U32: "<I", 5: "<i", F32: "<f", BOOL: "<B",
           10: "<Q", 11: "<q", 12: "<d"}  # fmt: skip
HIDDEN, HEADS, GROUPS, INNER, LAYERS = 32, 4, 2, 64, 1
ALIGNMENT = 32


@dataclass
class Typed:
    """A value with the type that the file states."""

    kind: int
    value: Any


@dataclass
class Tensor:
    """Sizes fastest first, type and bytes; offset None: after the tensor before it."""

    sizes: tuple[int, ...]
    kind: int
    data: bytes
    offset: int | None = None


@dataclass
class GgufFile:
    """Keys and tensors of a file."""

    keys: dict[str, Any]
    tensors: dict[str, Tensor]
    version: int = 3
    alignment: int = ALIGNMENT
    extra_keys: list[tuple[bytes, Any]] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """The file."""
        keys = [(name.encode(), value) for name, value in self.keys.items()] + self.extra_keys
        head = b"GGUF" + struct.pack("<IQQ", self.version, len(self.tensors), len(keys))
        head += b"".join(_string(name) + _value(value) for name, value in keys)
        data = b""
        for name, tensor in self.tensors.items():
            offset = len(data) if tensor.offset is None else tensor.offset
            head += _string(name.encode()) + struct.pack("<I", len(tensor.sizes))
            head += struct.pack(f"<{len(tensor.sizes)}Q", *tensor.sizes)
            head += struct.pack("<IQ", tensor.kind, offset)
            data += _padded(tensor.data, self.alignment)
        return _padded(head, self.alignment) + data

    def write(self, path: Path) -> Path:
        """Write the file to `path`, which is returned."""
        path.write_bytes(self.to_bytes())
        return path


def tiny_gguf(**keys: Any) -> GgufFile:
    """A llama of one layer with a byte-level tokenizer; keys: more or other ones, None for less."""
    tokens = byte_tokens()
    base: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.embedding_length": HIDDEN,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": INNER,
        "llama.context_length": 128,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": GROUPS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": Typed(5, [1] * 256 + [3] * (len(tokens) - 256)),
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.eos_token_id": 257,
        "tokenizer.ggml.bos_token_id": 256,
    }
    merged = {**base, **keys}
    kept = {name: value for name, value in merged.items() if value is not None}
    return GgufFile(kept, llama_tensors(len(tokens)))


def byte_tokens() -> list[str]:
    """GPT-2's letters for the 256 bytes, then two control tokens."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in visible] + [chr(256 + place) for place in range(68)]
    return [*letters, "<s>", "</s>"]


def llama_tensors(vocabulary: int, seed: int = 0) -> dict[str, Tensor]:
    """Random float32 tensors of the tiny llama."""
    width = HIDDEN // HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary, HIDDEN),
        "blk.0.attn_norm.weight": (HIDDEN,),
        "blk.0.attn_q.weight": (HIDDEN, HIDDEN),
        "blk.0.attn_k.weight": (GROUPS * width, HIDDEN),
        "blk.0.attn_v.weight": (GROUPS * width, HIDDEN),
        "blk.0.attn_output.weight": (HIDDEN, HIDDEN),
        "blk.0.ffn_norm.weight": (HIDDEN,),
        "blk.0.ffn_gate.weight": (INNER, HIDDEN),
        "blk.0.ffn_up.weight": (INNER, HIDDEN),
        "blk.0.ffn_down.weight": (HIDDEN, INNER),
        "output_norm.weight": (HIDDEN,),
    }
    random = np.random.default_rng(seed)
    return {name: floats(random.standard_normal(shape)) for name, shape in shapes.items()}


def floats(values: np.ndarray, kind: int = F32_TENSOR) -> Tensor:
    """A tensor of floats."""
    data = np.asarray(values, "<f4" if kind == F32_TENSOR else "<f2")
    return Tensor(data.shape[::-1], kind, data.tobytes())


def _string(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    typed = value if isinstance(value, Typed) else Typed(_kind(value), value)
    if isinstance(typed.value, list):
        kind = typed.kind if isinstance(value, Typed) else _kind((typed.value or [""])[0])
        head = struct.pack("<IIQ", ARRAY, kind, len(typed.value))
        return head + b"".join(_scalar(kind, part) for part in typed.value)
    return struct.pack("<I", typed.kind) + _scalar(typed.kind, typed.value)


def _scalar(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return _string(value if isinstance(value, bytes) else value.encode())
    return struct.pack(_PACKED[kind], value)


def _kind(value: Any) -> int:
    kinds = {bool: BOOL, int: U32, float: F32, str: STRING, bytes: STRING, list: ARRAY}
    return kinds[type(value)]


def _padded(data: bytes, alignment: int) -> bytes:
    return data + bytes(-len(data) % alignment)
