"""Reads JSON of untrusted checkpoints and tokenizers, limited in size and depth.

`package_files.py` reads a package's own JSON and is stricter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 64 << 20


def read_json_file(path: Path) -> Any:
    """What the file holds. Raises OSError, and ValueError for what is no JSON or too large."""
    with path.open("rb") as stream:
        raw = stream.read(MAX_JSON_BYTES + 1)
    if len(raw) > MAX_JSON_BYTES:
        raise ValueError(f"must have at most {MAX_JSON_BYTES} bytes, has more")
    return parse_json_text(raw.decode("utf-8"))


def parse_json_text(text: str | bytes) -> Any:
    """What the text holds. Raises ValueError, also where it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("must be JSON, got one nested too deeply") from None
