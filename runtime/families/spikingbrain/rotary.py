"""How fast the pairs of a head's channels turn with position (RoPE, arXiv 2104.09864).

Checkpoints for long texts turn slowly: "linear" divides every frequency, "llama3" (the code of
Llama 3.1) those whose wavelength is long, and passes smoothly from one to the other.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FIELDS = {
    "linear": ("factor",),
    "llama3": (
        "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
    ),
}  # fmt: skip
MOST = 1e9


def frequencies(
    theta: float, half: int, scaling: Mapping[str, Any] | None = None
) -> npt.NDArray[np.float64]:
    """Radians a token by which each of `half` pairs turns, (half,); scaling: see check_scaling."""
    plain = float(theta) ** (-np.arange(half, dtype=np.float64) / half)
    if scaling is None:
        return plain
    slow = plain / scaling["factor"]
    if scaling["rope_type"] == "linear":
        return slow
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * plain / (2.0 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1.0 - kept) * slow + kept * plain


def check_scaling(scaling: Any) -> None:
    """ValueError unless `scaling` is None or Hugging Face's fields of one of the kinds, complete.

    The model turns a pair as trained if it turned at least high_freq_factor times in
    original_max_position_embeddings tokens, and `factor` times slower if less than low_freq_factor.
    """
    if scaling is None:
        return
    kind = scaling.get("rope_type") if isinstance(scaling, Mapping) else None
    if not isinstance(kind, str) or kind not in FIELDS:
        kinds = " or ".join(map(repr, FIELDS))
        raise ValueError(f"rotary_scaling must have rope_type {kinds}, got {scaling!r:.200}")
    if set(scaling) != {"rope_type", *FIELDS[kind]}:
        raise ValueError(
            f"rotary_scaling of {kind} must have {', '.join(FIELDS[kind])}, got {scaling!r:.200}"
        )
    for name in FIELDS[kind]:
        value = scaling[name]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and 0.0 < value <= MOST):
            raise ValueError(
                f"rotary_scaling.{name} must be above 0 and at most {MOST:g}, got {value!r:.200}"
            )
    if kind == "llama3" and not scaling["low_freq_factor"] < scaling["high_freq_factor"]:
        raise ValueError(
            f"rotary_scaling.low_freq_factor must be below high_freq_factor "
            f"{scaling['high_freq_factor']}, got {scaling['low_freq_factor']}"
        )
