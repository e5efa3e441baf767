"""The one kind of error that a GGUF file causes."""

from pathlib import Path

from spiketrain.runtime.errors import SpiketrainError


class GgufError(SpiketrainError):
    """A GGUF file is damaged, contradicts itself, or is of a kind that is not read.

    `file` is the path, `field` names a key, a tensor or a part of the file, `rule` completes
    "<field> must ...", `value` is the offending value.
    """

    def __init__(self, file: Path, field: str, rule: str, value: object) -> None:
        shown = str(value) if isinstance(value, Unquoted) else repr(value)
        super().__init__(f"{file}: {_printable(field)} must {rule}, got {shown:.200}")
        self.file = file
        self.field = field
        self.rule = rule
        self.value = value


class Unquoted(str):
    """A value that is a phrase, such as "no such key", and not a text of the file."""

    __slots__ = ()


def _printable(field: str) -> str:
    """Names come from the file: they must stay in one line and be of a readable length."""
    return f"{field if field.isprintable() else repr(field):.200}"
