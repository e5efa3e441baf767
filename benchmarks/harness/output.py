"""The command line that benchmarks share, the table that they print, the file that they write."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.machine import line, machine
from harness.turns import Turns

HEADER = (
    "per s",
    "time, median (min to max)",
    "processor time",
    "time, of the first",
    "processor time, of the first",
)
SCALES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
TIMES = 3  # columns that say nothing of the first variant
Columns = Mapping[str, Mapping[str, str]]
Facts = Mapping[str, Any]


def parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """A parser with --rounds and --json; `description` is the script's docstring."""
    first_line = (description or "").splitlines()[0]
    shared = argparse.ArgumentParser(description=first_line)
    shared.add_argument("--rounds", type=int, default=rounds, help="rounds of which the median is")
    shared.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    return shared


class Report:
    """What a benchmark found: printed as it comes, written to the JSON file at the end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._sections: list[dict[str, Any]] = []
        self._machine = machine()
        self._command = shlex.join(["python", *sys.argv])
        print(f"`{self._command}`\n\n{line(self._machine)}; medians of {options.rounds} rounds")

    def turns(
        self,
        title: str,
        unit: str,
        turns: Turns,
        columns: Columns | None = None,
        facts: Facts | None = None,
        compare: bool = True,
    ) -> None:
        """One row a variant, times for each `unit`; `columns` (header -> variant -> text) follow.

        `facts` go into the file alone. Without `compare` the variants do different things: the
        table leaves out their ratios to the first.
        """
        columns = columns or {}
        header = HEADER if compare else HEADER[:TIMES]
        rows = [
            [
                name,
                *cells(turns, name)[: len(header)],
                *(column.get(name, "") for column in columns.values()),
            ]
            for name in turns.samples
        ]
        print(f"\n{title}; times for each {unit}\n")
        print(table(["", *header, *columns], rows), flush=True)
        variants = {name: figures(turns, name) for name in turns.samples}
        section = {"title": title, "unit": unit, "variants": variants}
        self._sections.append({**section, "columns": columns, "facts": facts or {}})

    def table(
        self,
        title: str,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        facts: Facts | None = None,
    ) -> None:
        """A table of the benchmark's own; `facts` go into the file, beside its cells."""
        print(f"\n{title}\n\n{table(header, rows)}", flush=True)
        section = {"title": title, "header": list(header), "rows": [list(row) for row in rows]}
        self._sections.append({**section, "facts": facts or {}})

    def finish(self) -> None:
        """Write the file, if one was named."""
        if self._options.json is None:
            return
        content = {
            "command": self._command,
            "machine": self._machine,
            "rounds": self._options.rounds,
            "sections": self._sections,
        }
        self._options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def cells(turns: Turns, name: str) -> list[str]:
    """The table's cells of a variant."""
    wall, processor = turns.wall_s(name), turns.processor_s(name)
    spread = f"{duration(wall.median)} ({duration(wall.min)} to {duration(wall.max)})"
    return [
        rate(wall.median),
        spread,
        duration(processor.median),
        f"{turns.wall_ratio(name).median:.2f}x",
        f"{turns.processor_ratio(name).median:.2f}x",
    ]


def figures(turns: Turns, name: str) -> dict[str, Any]:
    """The file's figures of a variant: spreads, and every round."""
    return {
        "wall_s": asdict(turns.wall_s(name)),
        "processor_s": asdict(turns.processor_s(name)),
        "wall_of_first": asdict(turns.wall_ratio(name)),
        "processor_of_first": asdict(turns.processor_ratio(name)),
        "rounds": [asdict(sample) for sample in turns.samples[name]],
    }


def duration(seconds: float) -> str:
    """Three digits with the unit that suits them."""
    scale, unit = next((pair for pair in SCALES if seconds >= pair[0]), SCALES[-1])
    return f"{seconds / scale:.3g} {unit}" if seconds < 1000 else f"{seconds:.0f} s"


def rate(seconds: float) -> str:
    """Units a second."""
    if not seconds:
        return ""
    per_s = 1 / seconds
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
