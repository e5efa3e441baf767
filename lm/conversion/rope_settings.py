"""What a config.json says of rotation -> `rotary_scaling` of a SpikingBrain; needs no torch."""

from collections.abc import Mapping
from typing import Any

from spiketrain.runtime.families.spikingbrain.rotary import FIELDS, check_scaling

_ROPE = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


def rope_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields about rotation, with `rotary_scaling` of a SpikingBrain made of them.

    settings: config.json, whose rope_parameters or rope_scaling say more.  Raises ValueError naming
    the field.
    """
    found = {"partial_rotary_factor": settings.get("partial_rotary_factor")}
    kinds: set[str] = set()
    for name in ("rope_parameters", "rope_scaling"):
        rope = settings.get(name) or {}
        if not isinstance(rope, dict):
            raise ValueError(f"config.json: {name} must be an object, got {rope!r:.200}")
        kind = rope.get("rope_type", rope.get("type"))
        if kind not in (None, "default", *FIELDS):
            known = ", ".join(("default", *FIELDS))
            raise ValueError(f"config.json: rope type must be one of {known}, got {kind!r:.200}")
        if kind is None and rope.keys() - _ROPE:
            raise ValueError(f"config.json: {name} must have a rope_type, got {rope!r:.200}")
        kinds |= set() if kind is None else {kind}
        found |= rope
    share = found["partial_rotary_factor"]
    if share not in (None, 1):
        raise ValueError(f"config.json: partial_rotary_factor must be 1, got {share!r:.200}")
    if len(kinds) > 1:
        raise ValueError(f"config.json: rope type must be one, got {sorted(kinds)}")
    return found | {"rotary_scaling": _scaling(kinds.pop() if kinds else "default", found)}


def _scaling(kind: str, rope: Mapping[str, Any]) -> dict[str, Any] | None:
    """rotary_scaling of a Config."""
    if kind == "default":
        return None
    scaling = {"rope_type": kind} | {name: rope[name] for name in FIELDS[kind] if name in rope}
    try:
        check_scaling(scaling)
    except ValueError as error:
        raise ValueError(f"config.json: {error}") from error
    return scaling
