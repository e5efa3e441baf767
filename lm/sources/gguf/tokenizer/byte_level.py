"""A `gpt2` tokenizer as the parts of a tokenizer.json: byte-level BPE with explicit merges."""

from typing import Any

from spiketrain.lm.sources.gguf.tokenizer.vocabulary import Vocabulary

_BYTES = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": False,
}


def byte_level_parts(vocabulary: Vocabulary) -> dict[str, Any]:
    """Normalizer, pre-tokenizer, decoder and model."""
    assert vocabulary.splits is not None
    splits = [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        for regex in vocabulary.splits.patterns
    ]
    tokens = vocabulary.tokens
    merges = [(tokens[left], tokens[right]) for left, right in vocabulary.merges.tolist()]
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, _BYTES]},
        "decoder": _BYTES,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": vocabulary.splits.whole_pieces,
            "vocab": {text: i for i, text in enumerate(tokens)},
            "merges": merges,
        },
    }
