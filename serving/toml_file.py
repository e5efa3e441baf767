"""Read a TOML file that an operator wrote; what is wrong with it is a ConfigError in one line."""

import sys
from pathlib import Path
from typing import Any

from spiketrain.serving.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1 << 20


def read_toml(path: str) -> dict[str, Any]:
    """The table in a file of at most 1 MiB. Raises ConfigError naming the file."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: must have at most {MAX_BYTES} bytes")
    try:
        table: dict[str, Any] = tomllib.loads(raw.decode("utf-8"))
        repr(table)  # an error that names a value has to be able to show the value
    except (ValueError, RecursionError) as error:  # also of numbers that Python does not take
        raise ConfigError(f"{path}: must be TOML in UTF-8 ({error!s:.200})") from None
    return table
