"""The character vocabularies of RWKV and SpikeGPT (vocab.json) as a `tokenizer.json`."""

from typing import Any

from spiketrain.runtime.json_file import parse_json_text

UNKNOWN = "\ue083"  # what the published code puts for a character it does not know


def character_tokenizer(content: bytes) -> dict[str, Any]:
    """A tokenizer.json that splits text into the characters of vocab.json.

    content: a JSON object {"0": character, "1": ...}, UTF-16 as the published code writes it, or
    UTF-8.  Characters that are not in it are dropped, or become UNKNOWN where that is in it.
    Raises ValueError if an id is missing or a value is not one character of its own.
    """
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    table = parse_json_text(content.decode(encoding))
    if not isinstance(table, dict) or not table:
        raise ValueError("vocabulary must be a JSON object of characters by id")
    vocab: dict[str, int] = {}
    for token in range(len(table)):
        character = table.get(str(token))
        if not isinstance(character, str) or len(character) != 1 or character in vocab:
            raise ValueError(f"id {token} must stand for one character, got {character!r:.50}")
        vocab[character] = token
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": " "}, "content": " "},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": UNKNOWN if UNKNOWN in vocab else None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [],
        },
    }
