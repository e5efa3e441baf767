"""The files that a package takes along for its tokenizer, found beside a checkpoint or given."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.json_file import parse_json_text, read_json_file
from spiketrain.runtime.package import TOKENIZER_FILES
from spiketrain.runtime.package_rules import GENERATION_KEYS
from spiketrain.runtime.tokenizer import parse_tokenizer


def tokenizer_beside(source: Path) -> Path | None:
    """The tokenizer in the folder of the checkpoint, if there is one."""
    folder = source if source.is_dir() else source.parent
    names = ["tokenizer.json", "tokenizer.model", "20B_tokenizer.json"]
    if source.suffix == ".pth":  # characters; elsewhere a vocab.json is a part of something else
        names.append("vocab.json")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    return None


def tokenizer_files(tokenizer: Path) -> dict[str, bytes | Path]:
    """The tokenizer with its companions: special tokens, chat template, sampling defaults.

    A .json of characters by id becomes a tokenizer.json; any other .json is one, whatever its name.
    """
    if tokenizer.suffix not in (".json", ".model") or not tokenizer.is_file():
        raise SpiketrainError(f"--tokenizer must be a file *.json or *.model, got {tokenizer}")
    name = f"tokenizer{tokenizer.suffix}"
    files: dict[str, bytes | Path] = {name: tokenizer}
    for companion in ("tokenizer_config.json", "chat_template.jinja"):
        if tokenizer.with_name(companion).is_file():
            files[companion] = tokenizer.with_name(companion)
    files |= _sampling_defaults(tokenizer.with_name("generation_config.json"))
    if tokenizer.suffix == ".json":
        characters = _characters(tokenizer)
        if characters is not None:
            files["tokenizer.json"] = characters
        elif "generation_config.json" not in files:
            files |= _end_of_text(tokenizer)
    if tokenizer.suffix == ".model" and "generation_config.json" not in files:
        import sentencepiece

        try:
            model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
        except (OSError, RuntimeError) as error:
            raise SpiketrainError(f"{tokenizer}: must be a SentencePiece model, {error}") from None
        if model.eos_id() >= 0:
            defaults = {"eos_token_id": model.eos_id()}
            files["generation_config.json"] = json.dumps(defaults).encode()
    return files


def check_tokenizer(files: Mapping[str, bytes | Path], vocab_size: int) -> None:
    """SpiketrainError unless a model of this vocabulary can have the tokenizer among `files`."""
    for name in TOKENIZER_FILES:
        if name not in files:
            continue
        source = files[name]
        where = source if isinstance(source, Path) else Path(name)
        found = parse_tokenizer(where, source if isinstance(source, bytes) else source.read_bytes())
        if found.vocab_size > vocab_size:
            raise SpiketrainError(
                f"{where}: must have at most the model's {vocab_size} tokens, "
                f"has {found.vocab_size}"
            )


def kept_settings(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a generation_config.json that a package has."""
    return {key: generation[key] for key in GENERATION_KEYS if generation.get(key) is not None}


def _sampling_defaults(path: Path) -> dict[str, bytes | Path]:
    """What a package takes of a generation_config.json: Hugging Face writes more into it."""
    if not path.is_file():
        return {}
    try:
        kept = kept_settings(read_json_file(path))
    except (ValueError, AttributeError) as error:
        raise SpiketrainError(f"{path}: must be a JSON object, got {error}") from error
    return {path.name: json.dumps(kept).encode()} if kept else {}


def _characters(tokenizer: Path) -> bytes | None:
    """The tokenizer.json of a character vocabulary; None if the file is a tokenizer itself."""
    from spiketrain.lm.character_tokenizer import character_tokenizer

    content = tokenizer.read_bytes()
    try:
        if content[:2] not in (b"\xff\xfe", b"\xfe\xff") and "model" in parse_json_text(content):
            return None
        return json.dumps(character_tokenizer(content)).encode()
    except ValueError as error:
        raise SpiketrainError(f"{tokenizer}: {error}") from error


def _end_of_text(tokenizer: Path) -> dict[str, bytes | Path]:
    """Default sampling parameters of a tokenizer.json: where a text ends, if anything says it.

    That is eos_token_id of the config.json beside it, or its token <|endoftext|>.
    """
    from spiketrain.lm.end_of_text import stated_ends

    ends = stated_ends(tokenizer.parent)
    if not ends:
        added = read_json_file(tokenizer).get("added_tokens", [])
        ends = [token["id"] for token in added if token.get("content") == "<|endoftext|>"]
    if not ends:
        return {}
    end = ends if len(ends) > 1 else ends[0]
    return {"generation_config.json": json.dumps({"eos_token_id": end}).encode()}
