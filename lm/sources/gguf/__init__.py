"""GGUF files of llama, qwen2 and qwen3, read without torch: `open_gguf` is the door."""

from spiketrain.lm.sources.gguf.blocks import Codes
from spiketrain.lm.sources.gguf.error import GgufError
from spiketrain.lm.sources.gguf.source import Source, open_gguf

__all__ = ["Codes", "GgufError", "Source", "open_gguf"]
