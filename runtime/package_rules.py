"""Rules for a package: the `spiketrain` object, tensors and generation defaults.

No function here opens a file; `where` is the file's name in errors. Pages of mapped files are given
back once they are checked.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.errors import PackageError
from spiketrain.runtime.family import Spec
from spiketrain.runtime.formats import widened
from spiketrain.runtime.package_spec import FORMAT_VERSION
from spiketrain.runtime.tensor_file import release

FIDELITIES = ("exact", "integer", "weight-only", "approximate")

_FORMAT_KEYS = {"format_version", "weights", "events", "fidelity", "fingerprint", "provenance"}
_OPTIONAL_KEYS = {"max_dial"}
_SHARES = ("top_p", "typical_p")  # in (0, 1]
GENERATION_KEYS = (
    "temperature",
    "top_k",
    *_SHARES,
    "min_p",
    "repetition_penalty",
    "max_new_tokens",
    "eos_token_id",
)
_BLOCK = 1 << 20
_MOST = 2**31 - 1  # of a whole number


def check_format(where: str, config: Mapping[str, Any]) -> None:
    """The `spiketrain` object: which format this is, before anything else is believed.

    Which formats of weights and events go together is the family's affair (its Spec's).
    """
    ours = config.get("spiketrain")
    if not isinstance(ours, dict):
        raise PackageError(f"{where}: spiketrain must be an object, got {ours!r:.200}")
    version = ours.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise PackageError(
            f"{where}: spiketrain.format_version must be {FORMAT_VERSION}, got {version!r:.200}"
        )
    for key in sorted(_FORMAT_KEYS ^ (set(ours) - _OPTIONAL_KEYS)):
        problem = "is unknown" if key in ours else "is missing"
        raise PackageError(f"{where}: spiketrain.{key!s:.200} {problem}")
    weights = ours["weights"]
    if not isinstance(weights, dict) or any(not isinstance(f, str) for f in weights.values()):
        raise PackageError(
            f"{where}: spiketrain.weights must name a format for each tensor class, "
            f"got {weights!r:.200}"
        )
    if ours["fidelity"] not in FIDELITIES:
        raise PackageError(
            f"{where}: spiketrain.fidelity must be one of {FIDELITIES}, "
            f"got {ours['fidelity']!r:.200}"
        )
    stated = ours["fingerprint"]
    if not isinstance(stated, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", stated):
        raise PackageError(
            f"{where}: spiketrain.fingerprint must be 'sha256:' and 64 hex digits, "
            f"got {stated!r:.200}"
        )
    if not isinstance(ours["provenance"], dict):
        raise PackageError(f"{where}: spiketrain.provenance must be an object")


def check_tensors(where: str, tensors: Mapping[str, NDArray[Any]], spec: Spec) -> None:
    """Names, dtypes and shapes as the family's Spec says; no byte of a tensor is read."""
    expected = spec.tensors()
    for name in sorted(set(tensors) ^ set(expected)):
        problem = "is missing" if name in expected else "is unknown"
        raise PackageError(f"{where}: tensor {name!r} {problem}")
    for name, (dtype, shape) in expected.items():
        array = tensors[name]
        if array.shape != shape:
            raise PackageError(f"{where}: tensor {name!r} is {array.shape}, config says {shape}")
        if array.dtype != np.dtype(dtype):
            raise PackageError(
                f"{where}: tensor {name!r} is {array.dtype}, config says {np.dtype(dtype)}"
            )


def check_values(where: str, tensors: Mapping[str, NDArray[Any]], spec: Spec) -> None:
    """Values as the family's Spec says; reads the tensors that it bounds."""
    rounded = spec.bfloat16_scales
    for name, array in tensors.items():
        _check_tensor(where, name, array, *spec.bounds(name))
        if name in rounded:
            _check_bfloat16(where, name, array)
        release(array)


def _check_tensor(where: str, name: str, array: NDArray[Any], low: float, high: float) -> None:
    """Every value in the range its kind allows, block by block."""
    if array.dtype == np.int8:
        low, high = -127, 127
    unbounded = (low, high) == (-math.inf, math.inf)
    if unbounded and array.dtype.kind in "iu" and array.dtype != np.uint16:
        return
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        if array.dtype == np.float32 and name.endswith(".scale"):
            rule, good = "finite and above 0", (block > 0) & np.isfinite(block)
        elif array.dtype == np.uint16:  # the bits of bfloat16
            rule, good = "finite", (block & 0x7F80) != 0x7F80
        elif unbounded:
            rule, good = "finite", np.isfinite(block)
        else:
            rule, good = f"in [{low:g}, {high:g}]", (block >= low) & (block <= high)
        if not good.all():
            at = start + int(np.argmin(good))
            index = tuple(map(int, np.unravel_index(at, array.shape)))
            value = widened(flat[at : at + 1])[0]
            raise PackageError(f"{where}: tensor {name!r} at {index} must be {rule}, got {value}")


def _check_bfloat16(where: str, name: str, array: NDArray[Any]) -> None:
    """Every number is one that bfloat16 holds: its lower 16 bits are zero."""
    good = (array.view(np.uint32) & 0xFFFF) == 0
    if not good.all():
        index = tuple(map(int, np.unravel_index(int(np.argmin(good)), array.shape)))
        raise PackageError(
            f"{where}: tensor {name!r} at {index} must be a number of bfloat16, got {array[index]}"
        )


def check_generation_config(where: str, values: Mapping[str, Any], vocab_size: int) -> None:
    """Default sampling parameters, each optional."""
    for key in sorted(set(values) - set(GENERATION_KEYS)):
        raise PackageError(f"{where}: {key!s:.200} is unknown")
    for key, value in values.items():
        rule = _generation_rule(key, value, vocab_size)
        if rule:
            raise PackageError(f"{where}: {key} must be {rule}, got {value!r:.200}")


def _generation_rule(key: str, value: Any, vocab_size: int) -> str | None:
    """The rule that `value` breaks, if any."""
    whole = type(value) is int
    number = value if whole or isinstance(value, float) else math.nan
    if key == "temperature":
        return None if 0 <= number <= sys.float_info.max else "a finite number of at least 0"
    if key == "repetition_penalty":
        return None if 0.01 <= number <= 100 else "a number in [0.01, 100]"
    if key == "min_p":
        return None if 0 <= number <= 1 else "a number in [0, 1]"
    if key in _SHARES:
        return None if 0 < number <= 1 else "a number in (0, 1]"
    if key == "top_k":
        return None if whole and 0 <= value <= _MOST else f"a whole number in [0, {_MOST}]"
    if key == "max_new_tokens":
        return None if whole and 1 <= value <= _MOST else f"a whole number in [1, {_MOST}]"
    ids = value if isinstance(value, list) else [value]
    good = all(type(token) is int and 0 <= token < vocab_size for token in ids)
    return None if good else f"a token id in [0, {vocab_size}) or a list of them"
