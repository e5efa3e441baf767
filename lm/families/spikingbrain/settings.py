"""Checks the fields of an upstream config.json one by one, before a Config is built from them."""

from collections.abc import Mapping, Sequence
from typing import Any

from spiketrain.runtime.families.spikingbrain.spec import Spec
from spiketrain.runtime.fields import Number, Whole, rules


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
    for name, rule in rules(Spec).items():
        key = names.get(name, name)
        if isinstance(rule, (Whole, Number)) and settings.get(key) is not None:
            rule(f"config.json: {key}", settings[key])
    layers = settings.get("attn_layers")
    if layers is not None and not _whole_list(layers):
        raise ValueError(f"config.json: attn_layers must be a list of layers, got {layers!r:.200}")


def _whole_list(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)
