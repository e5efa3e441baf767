"""A `llama` tokenizer as the parts of a tokenizer.json: SentencePiece's BPE, by scores.

SentencePiece joins the two neighbours whose join has the highest score (arXiv 1808.06226).  A
tokenizer.json has no scores, so every cut of a token into two tokens becomes a merge.
"""

from typing import Any

from spiketrain.lm.sources.gguf.tokenizer.vocabulary import TokenType, Vocabulary

_BLANK = "\u2581"
_MERGED = (TokenType.NORMAL, TokenType.USER_DEFINED)


def sentencepiece_parts(vocabulary: Vocabulary) -> dict[str, Any]:
    """Normalizer, pre-tokenizer, decoder and model."""
    prefix = [{"type": "Prepend", "prepend": _BLANK}] * vocabulary.add_space_prefix
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": _BLANK}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    decoders = [
        {"type": "Replace", "pattern": {"String": _BLANK}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        *strip * vocabulary.add_space_prefix,
    ]
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, blanks]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": vocabulary.tokens[vocabulary.special["unknown"]],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {text: i for i, text in enumerate(vocabulary.tokens)},
            "merges": _merges(vocabulary),
        },
    }


def _merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Every cut of a token into two tokens, by falling score of the token, then by ids."""
    assert vocabulary.scores is not None
    ids = {text: i for i, text in enumerate(vocabulary.tokens)}
    cuts = []
    for text, kind, score in zip(
        vocabulary.tokens, vocabulary.types.tolist(), vocabulary.scores.tolist(), strict=True
    ):
        if kind in _MERGED:
            for place in range(1, len(text)):
                left, right = ids.get(text[:place]), ids.get(text[place:])
                if left is not None and right is not None:
                    cuts.append((-score, left, right))
    cuts.sort()
    return [(vocabulary.tokens[left], vocabulary.tokens[right]) for _, left, right in cuts]
