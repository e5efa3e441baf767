"""Keys of a GGUF file, asked for by the type that they must have."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spiketrain.lm.sources.gguf.error import GgufError, Unquoted
from spiketrain.lm.sources.gguf.values import Texts

MOST = 2**31 - 1
_MISSING = Unquoted("no such key")


class Metadata:
    """Key -> value of one file.  Each method raises GgufError naming key, rule and value.

    A method with `default` returns the default where the key is missing; without a default the
    key is required.
    """

    def __init__(self, file: Path, values: dict[str, Any]) -> None:
        self.file = file
        self._values = values
        self._read: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def error(self, key: str, rule: str, value: object) -> GgufError:
        """The error that says which key of this file breaks which rule."""
        return GgufError(self.file, key, rule, value)

    def integer(
        self, key: str, default: int | None = None, least: int = 0, most: int = MOST
    ) -> int:
        """A whole number from `least` to `most`."""
        value = self._value(key, default)
        if type(value) is not int or not least <= value <= most:
            raise self.error(key, f"be a whole number from {least} to {most}", _shown(value))
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._value(key, default)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self.error(key, "be a finite number", _shown(value))
        return float(value)

    def positive(self, key: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self.number(key, default)
        if value <= 0.0:
            raise self.error(key, "be above 0", value)
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._value(key, default)
        if type(value) is not bool:
            raise self.error(key, "be true or false", _shown(value))
        return value

    def text(self, key: str, default: str | None = None, most: int = 1 << 20) -> str:
        """A text of at most `most` bytes."""
        value = self._value(key, None if default is None else default.encode())
        if not isinstance(value, bytes):
            raise self.error(key, "be a text", _shown(value))
        if len(value) > most:
            raise self.error(key, f"have at most {most} bytes", len(value))
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(key, "be UTF-8", Unquoted(f"byte {error.start} that is not")) from None

    def texts(self, key: str, most: int) -> Iterator[str]:
        """Each of an array of at most `most` texts."""
        value = self._value(key, None)
        if not isinstance(value, Texts):
            raise self.error(key, "be an array of texts", _shown(value))
        if len(value) > most:
            raise self.error(key, f"have at most {most} texts", len(value))
        try:
            yield from value
        except UnicodeDecodeError as error:
            raise self.error(key, "hold texts in UTF-8", error.object[:50]) from None

    def unread(self, prefix: str) -> list[str]:
        """Keys that begin with `prefix` and that nobody has asked for."""
        return [key for key in self._values if key.startswith(prefix) and key not in self._read]

    def array(self, key: str, kind: str, length: int) -> npt.NDArray[Any]:
        """An array of `length` numbers whose dtype has the NumPy kind `kind` ("i" or "f")."""
        value = self._value(key, None)
        kinds = "iu" if kind == "i" else kind
        if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
            named = "whole numbers" if kind == "i" else "floats"
            raise self.error(key, f"be an array of {named}", _shown(value))
        if len(value) != length:
            raise self.error(key, f"have {length} elements", len(value))
        return value

    def _value(self, key: str, default: Any) -> Any:
        self._read.add(key)
        value = self._values.get(key, default)
        if value is None:
            raise self.error(key, "be in the file", _MISSING)
        return value


def _shown(value: Any) -> object:
    """The value as an error shows it: an array by its length."""
    if isinstance(value, (np.ndarray, Texts)):
        return Unquoted(f"an array of {len(value)}")
    return value
