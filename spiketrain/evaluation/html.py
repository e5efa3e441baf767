"""A report as one HTML file that needs nothing else: tables and pictures, all of it escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; display: block; overflow-x: auto; }
td, th { border-bottom: 1px solid #ccc; padding: .25em .7em; text-align: right; }
td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; } p.note { color: #555; } code { overflow-wrap: anywhere; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page of `parts`, which are HTML already."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    body = f"<h1>{html.escape(title)}</h1>\n" + "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def heading(text: str) -> str:
    """A heading of a part."""
    return f"<h2>{html.escape(text)}</h2>"


def note(text: str) -> str:
    """A remark."""
    return f'<p class="note">{html.escape(text)}</p>'


def picture(png: bytes, what: str) -> str:
    """A picture with the words for those who do not see it."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(what)}" src="data:image/png;base64,{data}">'


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same keys, which head the columns."""
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(key.replace('_', ' '))}</th>" for key in rows[0])
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(shown(row[key]))}</td>" for key in rows[0]) + "</tr>"
        for row in rows
    ]
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def shown(value: Any) -> str:
    """A number with as many digits as help, other things as they are, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
