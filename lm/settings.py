"""Fields of a Hugging Face config.json, checked one by one before a Config is made of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from spiketrain.runtime.families.spikingbrain.checks import (
    NUMBERS,
    SIZES,
    check_number,
    check_whole,
)


def check_settings(
    settings: Mapping[str, Any], needed: Sequence[str], theirs: Mapping[str, str] | None = None
) -> None:
    """ValueError naming the first field that is missing, or that no package could have.

    needed: fields without a default that could be trusted; others may be missing or null.  theirs:
    name in `settings` of a field that has another one here.
    """
    for name in needed:
        if settings.get(name) is None:
            raise ValueError(f"config.json: {name} is missing")
    names = dict(theirs or {})
    for name, most in SIZES.items():
        own = names.get(name, name)
        if settings.get(own) is not None:
            check_whole(f"config.json: {own}", settings[own], 1, most)
    for name, (low, high) in NUMBERS.items():
        own = names.get(name, name)
        if settings.get(own) is not None:
            check_number(f"config.json: {own}", settings[own], low, high)
    layers = settings.get("attn_layers")
    if layers is not None and not _whole_list(layers):
        raise ValueError(f"config.json: attn_layers must be a list of layers, got {layers!r:.200}")


def _whole_list(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)
