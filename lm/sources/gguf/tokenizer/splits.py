r"""How byte-level tokenizers cut a text before they merge: the rules behind `tokenizer.ggml.pre`.

Each rule is a sequence of regular expressions.  A match is a piece of its own, and so is what lies
between matches; each expression cuts the pieces of the one before.
"""

from dataclasses import dataclass

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_GPT2 = rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
_DIGITS_APART = r"\p{N}"


def _qwen(numbers: str, letters: str = r"\p{L}", marks: str = "") -> str:
    """The rule of the Qwen and Llama 3 tokenizers; marks: what else counts as a letter."""
    return (
        rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?{letters}+|{numbers}"
        rf"| ?[^\s\p{{L}}{marks}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


@dataclass(frozen=True, slots=True)
class Splits:
    """One rule.

    patterns: regular expressions, one after the other.  whole_pieces: a piece that is a token is
    taken whole, without merging.  adds_bos: a text begins with the first token unless the file
    says otherwise.
    """

    patterns: tuple[str, ...]
    whole_pieces: bool = False
    adds_bos: bool = False


_RULES = (
    (("gpt-2", "phi-2", "olmo", "jais", "mpt"), Splits((_GPT2,))),
    (
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"),
        Splits((_DIGITS_APART, _GPT2)),
    ),
    (
        ("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2"),
        Splits((_qwen(_DIGITS_APART),)),
    ),
    (("qwen35",), Splits((_qwen(_DIGITS_APART, r"[\p{L}\p{M}]", r"\p{M}"),))),
    (
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "lfm2", "pixtral"),
        Splits((_qwen(r"\p{N}{1,3}"),), whole_pieces=True, adds_bos=True),
    ),
    (
        ("default",),
        Splits((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    ),
)
SPLITS = {name: splits for names, splits in _RULES for name in names}
