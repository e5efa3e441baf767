"""The chat template of a package or of a file, as text, with the special tokens it may name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from spiketrain.runtime.errors import PackageError
from spiketrain.runtime.package_files import has_file, package_root, read_json, read_limited

MAX_BYTES = 1 << 20
_CONFIG = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"
_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


class ChatTemplateSource(NamedTuple):
    """A Jinja template; special tokens by name; `where` it was found."""

    source: str
    special_tokens: dict[str, str]
    where: str


def read_chat_template(
    path: str | os.PathLike[str], file: str | os.PathLike[str] | None = None
) -> ChatTemplateSource | None:
    """The template of the package at `path`, or that of `file` in its place; None without one.

    Raises PackageError.
    """
    root = package_root(path)
    config: dict[str, Any] = {}
    if has_file(root, _CONFIG):
        config = read_json(root, _CONFIG, MAX_BYTES)
    tokens = {name: _token_text(config.get(name)) for name in _TOKENS}
    special = {name: text for name, text in tokens.items() if text is not None}
    if file is not None:
        folder = package_root(Path(file).parent)
        return ChatTemplateSource(_text(folder, Path(file).name), special, str(file))
    if has_file(root, _TEMPLATE):
        return ChatTemplateSource(_text(root, _TEMPLATE), special, str(root / _TEMPLATE))
    where = str(root / _CONFIG)
    source = _default(where, config.get("chat_template"))
    return None if source is None else ChatTemplateSource(source, special, where)


def _text(root: Path, name: str) -> str:
    try:
        return read_limited(root, name, MAX_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise PackageError(f"{root / name}: must be UTF-8, byte {error.start} is not") from None


def _default(where: str, template: Any) -> str | None:
    """Of several named templates the one called default."""
    if isinstance(template, list):
        named = [entry for entry in template if isinstance(entry, dict)]
        template = next((e.get("template") for e in named if e.get("name") == "default"), None)
    if template is not None and not isinstance(template, str):
        raise PackageError(f"{where}: chat_template must be a text, got {type(template).__name__}")
    return template


def _token_text(token: Any) -> str | None:
    """A special token is a text, or an object whose `content` is one."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
