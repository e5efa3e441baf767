"""The models of `spiketrain eval`: a package in the runtime, or a checkpoint in torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spiketrain.commands.extras import need_train_extra
from spiketrain.commands.model_argument import NO_DIAL, model_directory


def open_package(
    model: str, threads: int, table_bytes: int, dial: float = NO_DIAL
) -> tuple[Any, Any]:
    """The runtime model of a package, and its tokenizer or None."""
    from spiketrain.runtime import load_model

    loaded = load_model(model_directory(model), threads, table_bytes, dial)
    return loaded, loaded.tokenizer


def open_checkpoint(path: Path, dial: float = NO_DIAL) -> tuple[Any, Any]:
    """The torch model of a checkpoint or a run in float32, and the tokenizer beside it or None."""
    need_train_extra()
    from spiketrain.commands.tokenizer_files import tokenizer_beside, tokenizer_files
    from spiketrain.lm.checkpoint import load_checkpoint
    from spiketrain.lm.scoring import TorchModel
    from spiketrain.runtime.tokenizer import load_tokenizer

    torch_model = load_checkpoint(path)
    beside = tokenizer_beside(path)
    if beside is None:
        return TorchModel(torch_model, dial=dial), None
    ends = _end_of_text(tokenizer_files(beside))
    return TorchModel(torch_model, ends, dial), load_tokenizer(beside)


def open_model(
    model: str, in_torch: bool, threads: int, table_bytes: int, dial: float = NO_DIAL
) -> tuple[Any, Any]:
    """A checkpoint in torch or a package in the runtime, and its tokenizer or None."""
    if in_torch:
        return open_checkpoint(Path(model), dial)
    return open_package(model, threads, table_bytes, dial)


def read_tokenizer(path: Path) -> Any:
    """A tokenizer file or directory, or a .txt with one word a line for word-level text."""
    if path.suffix == ".txt":
        from spiketrain.evaluation.words import load_words

        return load_words(path)
    from spiketrain.runtime.tokenizer import load_tokenizer

    return load_tokenizer(path)


def choose_tokenizer(own: Any, path: Path | None, data: str, vocab_size: int, model: str) -> Any:
    """The tokenizer that is named, the model's own, or WikiText-2's words; TokenizerError."""
    from spiketrain.evaluation.sources import WIKITEXT2
    from spiketrain.evaluation.words import wikitext2_words
    from spiketrain.runtime.errors import TokenizerError

    if path is not None:
        return read_tokenizer(path)
    if own is not None:
        return own
    if data == WIKITEXT2:
        return wikitext2_words(vocab_size)
    raise TokenizerError(f"{model}: has no tokenizer, name one with --tokenizer")


def _end_of_text(files: dict[str, bytes | Path]) -> tuple[int, ...]:
    """The end-of-text ids that a tokenizer's companions name."""
    content = files.get("generation_config.json", b"{}")
    found = json.loads(content if isinstance(content, bytes) else content.read_bytes())
    ids = found.get("eos_token_id", [])
    return tuple(ids) if isinstance(ids, list) else (int(ids),)
