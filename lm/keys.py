"""A checkpoint's tensors against those a model wants: all that is wrong, said at once."""

from collections.abc import Mapping

from torch import Tensor


def check_keys(
    found: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], what: str
) -> None:
    """Raise ValueError listing every missing, unknown and misshapen key; wanted: name -> shape."""
    wrong = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    wrong += [f"{name} is unknown" for name in found.keys() - wanted.keys()]
    wrong += [
        f"{name} is {tuple(found[name].shape)}, expected {shape}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    if wrong:
        raise ValueError(f"keys do not fit {what}: " + "; ".join(sorted(wrong)))
