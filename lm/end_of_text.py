"""The token that ends a text, from the config.json beside a tokenizer."""

from pathlib import Path

from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.json_file import read_json_file


def stated_ends(folder: Path) -> list[int]:
    """eos_token_id of a Hugging Face directory, or data.end_of_text of a run; [] if not stated.

    Raises SpiketrainError on a config.json that cannot be read, or another value.
    """
    settings = folder / "config.json"
    if not settings.is_file():
        return []
    try:
        stated = read_json_file(settings)
        tokens = stated.get("eos_token_id", (stated.get("data") or {}).get("end_of_text"))
    except (OSError, ValueError, AttributeError) as error:
        raise SpiketrainError(f"{settings}: must be a readable JSON object, {error}") from error
    ends = tokens if isinstance(tokens, list) else [tokens] * (tokens is not None)
    if not all(type(end) is int and end >= 0 for end in ends):
        raise SpiketrainError(
            f"{settings}: eos_token_id must be a token or several, got {tokens!r}"
        )
    return ends
