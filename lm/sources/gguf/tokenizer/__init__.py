"""The tokenizer of a GGUF file -> the files of a Hugging Face tokenizer."""

from spiketrain.lm.sources.gguf.tokenizer.files import tokenizer_files
from spiketrain.lm.sources.gguf.tokenizer.vocabulary import Vocabulary, read_vocabulary

__all__ = ["Vocabulary", "read_vocabulary", "tokenizer_files"]
