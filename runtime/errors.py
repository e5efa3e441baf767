"""Errors at the borders of the runtime.

Every message names the field, the rule and the value.
"""

from __future__ import annotations

import os

MAX_SHOWN = 300  # characters of a text that an error repeats


class SpiketrainError(ValueError):
    """Base of every error that a user can cause; shown without a traceback."""


class PackageError(SpiketrainError):
    """A package on disk, or one about to be written, breaks the format."""


class StateError(SpiketrainError):
    """A serialised state is damaged, out of bounds or belongs to another model."""


class TokenizerError(SpiketrainError):
    """A tokenizer is missing, unreadable, or was given what it cannot encode or decode."""


class DataError(SpiketrainError):
    """A text file to be scored or trained on is missing, empty or not UTF-8."""


class WriteError(SpiketrainError):
    """The system takes a file no further: a full disk, a quota, a limit, no permission."""

    @classmethod
    def of(cls, path: str | os.PathLike[str], error: OSError) -> WriteError:
        """What to say of the file `path`, which an OSError kept from being written."""
        return cls(f"{os.fspath(path)}: must be writable, got {error.strerror or error}")


class PoolFull(SpiketrainError):  # noqa: N818
    """No free slot for another sequence."""


class CallCancelled(SpiketrainError):  # noqa: N818
    """A call of the model was cancelled; the state has read the first `read` tokens, no more."""

    def __init__(self, read: int, tokens: int) -> None:
        super().__init__(f"cancelled after {read} of {tokens} tokens")
        self.read = read


class RequestError(SpiketrainError):
    """A request, or one of its parameters, is refused.

    `field` is the public name of the parameter, `rule` completes "<field> must ...",
    `value` is what was given.
    """

    def __init__(self, field: str, rule: str, value: object) -> None:
        super().__init__(f"{field} must {rule}, got {_start(value)!r}")
        self.field = field
        self.rule = rule
        self.value = value


def _start(value: object) -> object:
    """The value itself, or the beginning of a long text: whoever sends megabytes reads none."""
    return value[:MAX_SHOWN] if isinstance(value, str | bytes) else value
