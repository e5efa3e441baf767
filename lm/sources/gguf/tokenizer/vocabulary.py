"""Tokens, merges and special tokens of a GGUF file, checked against one another."""

import enum
from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spiketrain.lm.sources.gguf.error import Unquoted
from spiketrain.lm.sources.gguf.metadata import Metadata
from spiketrain.lm.sources.gguf.tokenizer.splits import SPLITS, Splits

PREFIX = "tokenizer.ggml."
GPT2, LLAMA = "gpt2", "llama"
MAX_TOKENS = 1 << 19
MAX_MERGES = 1 << 20
_MAX_TOKEN_CHARACTERS = 4096
_ENDS_BY_TEXT = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")  # as llama.cpp takes them
_LLAMA_DEFAULTS = {"unknown": 0, "bos": 1, "eos": 2}  # SentencePiece's own
Ids = npt.NDArray[np.int32]


class TokenType(enum.IntEnum):
    """What `tokenizer.ggml.token_type` says of a token."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer as the file has it; every id is below the number of tokens.

    model: "gpt2" (byte-level, with `merges` and `splits`) or "llama" (by `scores`).  types: int
    (tokens,).  merges: ids (merges, 2), best first.  special: ids by role ("bos", "eos", "unknown",
    "padding", "eot", "eom"), those that the file has.  ends: ids after which a text is over.
    """

    model: str
    tokens: list[str]
    types: npt.NDArray[np.int64]
    merges: Ids
    scores: npt.NDArray[np.float32] | None
    splits: Splits | None
    split_name: str
    special: dict[str, int]
    ends: list[int]
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool


def read_vocabulary(metadata: Metadata, vocab_size: int) -> Vocabulary:
    """The tokenizer of a model with `vocab_size` rows of embeddings.

    Raises GgufError naming the key with a tokenizer that is not read, a length that differs, a
    token that is there twice, a merge of or to something that is no token, or an id outside.
    """
    model = metadata.text(f"{PREFIX}model")
    if model not in (GPT2, LLAMA):
        raise metadata.error(f"{PREFIX}model", f"be {GPT2} or {LLAMA}", model)
    tokens = _tokens(metadata, vocab_size)
    ids = _ids(metadata, tokens)
    types = _types(metadata, model, len(tokens))
    special = _special(metadata, model, len(tokens))
    by_text = [ids[text] for text in _ENDS_BY_TEXT if text in ids]
    types[by_text] = TokenType.CONTROL
    ends = [special[role] for role in ("eos", "eot", "eom") if role in special] + by_text
    name, splits = _splits(metadata) if model == GPT2 else ("", None)
    adds_bos = splits.adds_bos if splits is not None else True
    return Vocabulary(
        model=model,
        tokens=tokens,
        types=types,
        merges=_merges(metadata, ids) if model == GPT2 else np.empty((0, 2), np.int32),
        scores=_scores(metadata, len(tokens)) if model == LLAMA else None,
        splits=splits,
        split_name=name,
        special=special,
        ends=list(dict.fromkeys(ends)),
        add_bos=_added(metadata, "bos", adds_bos, special),
        add_eos=_added(metadata, "eos", False, special),
        add_space_prefix=metadata.flag(f"{PREFIX}add_space_prefix", True),
    )


def _tokens(metadata: Metadata, vocab_size: int) -> list[str]:
    key = f"{PREFIX}tokens"
    tokens = list(metadata.texts(key, MAX_TOKENS))
    if len(tokens) != vocab_size:
        rule = f"have as many texts as the embedding has rows, {vocab_size}"
        raise metadata.error(key, rule, len(tokens))
    longest = max(tokens, key=len)
    if len(longest) > _MAX_TOKEN_CHARACTERS:
        rule = f"hold texts of at most {_MAX_TOKEN_CHARACTERS} characters"
        raise metadata.error(key, rule, len(longest))
    return [text or f"[EMPTY_{i}]" for i, text in enumerate(tokens)]


def _ids(metadata: Metadata, tokens: list[str]) -> dict[str, int]:
    """Text -> id of each token."""
    ids: dict[str, int] = {}
    for i, text in enumerate(tokens):
        if ids.setdefault(text, i) != i:
            rule = f"hold each text once, {i} and {ids[text]} are equal"
            raise metadata.error(f"{PREFIX}tokens", rule, text)
    return ids


def _types(metadata: Metadata, model: str, count: int) -> npt.NDArray[np.int64]:
    key = f"{PREFIX}token_type"
    if key not in metadata and model == GPT2:
        return np.full(count, TokenType.NORMAL, np.int64)
    types = metadata.array(key, "i", count)
    outside = types[(types < min(TokenType)) | (types > max(TokenType))]
    if len(outside):
        rule = f"hold types {min(TokenType):d} to {max(TokenType):d}"
        raise metadata.error(key, rule, int(outside[0]))
    return types.astype(np.int64)


def _scores(metadata: Metadata, count: int) -> npt.NDArray[np.float32]:
    scores = metadata.array(f"{PREFIX}scores", "f", count).astype(np.float32)
    if not np.isfinite(scores).all():
        raise metadata.error(f"{PREFIX}scores", "be finite", Unquoted("a score that is not"))
    return scores


def _special(metadata: Metadata, model: str, count: int) -> dict[str, int]:
    """Ids by role, those that are stated or that SentencePiece always has."""
    special = {}
    for role in ("bos", "eos", "unknown", "padding", "eot", "eom"):
        key = f"{PREFIX}{role}_token_id"
        default = _LLAMA_DEFAULTS.get(role) if model == LLAMA else None
        if key in metadata or default is not None:
            special[role] = metadata.integer(key, default, most=count - 1)
    return special


def _added(metadata: Metadata, role: str, default: bool, special: dict[str, int]) -> bool:
    """Whether the token of this role is added to every text."""
    key = f"{PREFIX}add_{role}_token"
    if role in special:
        return metadata.flag(key, default)
    if metadata.flag(key, False):
        rule = f"be false without {PREFIX}{role}_token_id"
        raise metadata.error(key, rule, True)
    return False


def _splits(metadata: Metadata) -> tuple[str, Splits]:
    name = metadata.text(f"{PREFIX}pre", "default")
    if name not in SPLITS:
        raise metadata.error(f"{PREFIX}pre", f"be one of {', '.join(SPLITS)}", name)
    return name, SPLITS[name]


def _merges(metadata: Metadata, ids: dict[str, int]) -> Ids:
    """Pairs of tokens whose join is a token, best first; of equal pairs the first counts."""
    key = f"{PREFIX}merges"
    pairs = array("i")
    for text in metadata.texts(key, MAX_MERGES):
        space = text.find(" ", 1)  # a token may begin with a space, so not at 0
        left, right = text[:space], text[space + 1 :]
        if space < 0 or not (left in ids and right in ids and left + right in ids):
            raise metadata.error(key, "be two tokens whose join is a token", text)
        pairs.extend((ids[left], ids[right]))
    merges = np.array(pairs, np.int32).reshape(-1, 2)
    _, first = np.unique(merges @ np.array((len(ids), 1), np.int64), return_index=True)
    return merges[np.sort(first)]
