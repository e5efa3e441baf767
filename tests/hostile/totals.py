"""totals.json: how many inputs each surface has stood, over all runs; and the table of it."""

import json
from pathlib import Path

HERE = Path(__file__).parent
TOTALS = HERE / "totals.json"
FOUND = HERE / "found"
PAGE = HERE.parents[1] / "docs" / "hostile.md"
BEGIN, END = "<!-- totals: begin -->", "<!-- totals: end -->"


def read(path: Path = TOTALS) -> dict:
    """{"seed": ..., "surfaces": {name: {"inputs": ..., "findings": ...}}}."""
    return json.loads(path.read_text()) if path.exists() else {"seed": 1, "surfaces": {}}


def add(totals: dict, name: str, inputs: int, found: int) -> None:
    """Count what a batch tried."""
    entry = totals["surfaces"].setdefault(name, {"inputs": 0, "findings": 0})
    entry["inputs"] += inputs
    entry["findings"] += found


def write(totals: dict, path: Path = TOTALS) -> None:
    """Replace the file as a whole: a run may be ended at any time."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(totals, indent=2, sort_keys=True) + "\n")
    draft.replace(path)


def table(totals: dict, targets: dict[str, int]) -> str:
    """The counts as a table in Markdown."""
    rows = ["| surface | inputs tried | of a full campaign | findings |", "|---|---:|---:|---:|"]
    for name in sorted(targets):
        entry = totals["surfaces"].get(name, {"inputs": 0, "findings": 0})
        rows.append(f"| {name} | {entry['inputs']:,} | {targets[name]:,} | {entry['findings']} |")
    return "\n".join(rows)


def written_into(page: str, text: str) -> str:
    """The page with `text` between its marks."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def keep(surface: str, data: bytes, folder: Path = FOUND) -> Path:
    """Write an input that failed to the corpus, once."""
    import hashlib

    place = folder / surface
    place.mkdir(parents=True, exist_ok=True)
    path = place / hashlib.sha256(data).hexdigest()[:12]
    path.write_bytes(data)
    return path
