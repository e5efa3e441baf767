"""llama.cpp as a contender: decode and prefill of a GGUF file (needs llama-cpp-python)."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import Any

import numpy as np

SILENT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(
    lambda level, text, data: None
)
REPEATED_TOKENS = 4  # whose keys and values stand for a long past


class Llama:
    """A loaded file with room for `tokens` tokens, after `past` synthetic ones."""

    def __init__(self, path: Path, threads: int, tokens: int, past: int = 0) -> None:
        import llama_cpp as api

        self._api = api
        api.llama_log_set(SILENT, ctypes.c_void_p(0))
        parameters = api.llama_context_default_params()
        parameters.n_ctx = past + tokens
        parameters.n_batch, parameters.n_ubatch = tokens, min(tokens, 512)
        parameters.n_threads = parameters.n_threads_batch = threads
        model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
        self._context = api.llama_init_from_model(model, parameters)
        if not self._context:
            raise RuntimeError(f"llama.cpp does not load {path}")
        if past:
            self.decode(REPEATED_TOKENS)
            lengthen(api, self._context, past)

    def decode(self, tokens: int) -> None:
        """Read tokens one by one, after those before."""
        for token in range(tokens):
            self._read([token])

    def prefill(self, tokens: int) -> None:
        """Read a prompt at once; what was before is forgotten."""
        api = self._api
        api.llama_memory_clear(api.llama_get_memory(self._context), True)
        self._read(list(range(tokens)))

    def _read(self, tokens: list[int]) -> None:
        api = self._api
        array = (api.llama_token * len(tokens))(*tokens)
        if api.llama_decode(self._context, api.llama_batch_get_one(array, len(tokens))):
            raise RuntimeError("llama_decode failed")
        api.llama_synchronize(self._context)


def lengthen(api: Any, context: Any, count: int) -> None:
    """Repeat the keys and values of llama.cpp's first tokens until there are `count`.

    The blob of a sequence: 8 bytes of a header, streams, cells, (position, 1, sequence) of each
    cell, whether values are transposed, layers, and for each layer type, row size and rows of its
    keys, then the same of all values.
    """
    size = api.llama_state_seq_get_size(context, 0)
    buffer = (ctypes.c_uint8 * size)()
    api.llama_state_seq_get_data(context, buffer, size, 0)
    old = bytes(buffer)
    streams, cells = struct.unpack_from("<2I", old, 8)
    at = 16 + 12 * cells
    transposed, layers = struct.unpack_from("<2I", old, at)
    if streams != 1 or transposed:
        raise RuntimeError(f"llama.cpp's state has {streams} streams, transposed {transposed}")
    places = np.zeros((count, 3), "<u4")
    places[:, 0], places[:, 1] = np.arange(count), 1
    parts = [old[:12], struct.pack("<I", count), places.tobytes(), old[at : at + 8]]
    at += 8
    for _ in range(2 * layers):
        (row,) = struct.unpack_from("<Q", old, at + 4)
        rows = old[at + 12 : at + 12 + cells * row]
        parts += [old[at : at + 12], (rows * -(-count // cells))[: count * row]]
        at += 12 + cells * row
    new = b"".join(parts)
    taken = api.llama_state_seq_set_data(
        context, (ctypes.c_uint8 * len(new)).from_buffer_copy(new), len(new), 0
    )
    if at != size or taken != len(new):
        raise RuntimeError(f"llama.cpp took {taken} bytes of a state of {len(new)}")
