"""Dial: the factor, at least 1, by which a sequence raises the size below which inputs are silent.

Where a model makes spike counts, the dial multiplies the size from which an input counts: the first
threshold, or a larger dead zone. Larger counts stay unchanged. A dial is a float32, as are the
sizes that the dial multiplies.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spiketrain.runtime.errors import RequestError

NO_DIAL = 1.0
MAX_DIAL = 16.0


def checked_dial(dial: Any, most: float) -> float:
    """The dial in use where `most` is the greatest; RequestError for one outside [1, most]."""
    number = isinstance(dial, (int, float, np.floating)) and not isinstance(dial, bool)
    rounded = as_number(dial) if number else math.nan
    if not NO_DIAL <= rounded <= most:
        rule = f"be from 1 to {most:g}" if most > NO_DIAL else "be 1: this model has no other"
        raise RequestError("dial", rule, dial)
    return rounded


def most_dial(ours: dict[str, Any]) -> float:
    """The greatest dial of a package with this `spiketrain` object; ValueError for a wrong one."""
    stated = ours.get("max_dial", NO_DIAL)
    number = isinstance(stated, (int, float)) and not isinstance(stated, bool)
    if "max_dial" in ours and not (number and NO_DIAL < stated <= MAX_DIAL):
        raise ValueError(
            f"spiketrain.max_dial must be a number above 1 and at most {MAX_DIAL:g}, "
            f"got {stated!r:.200}"
        )
    return as_number(stated)


def as_number(value: float) -> float:
    """The shortest decimal that stands for a dial's float32; too large a number is infinite."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))
