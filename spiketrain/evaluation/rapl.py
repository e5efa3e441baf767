"""Joules of the processor from Linux's powercap counters (RAPL), where they can be read.

A counter covers a whole package with everything that runs on it, idle power too.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/class/powercap")


class Rapl:
    """Joules of all packages between `start` and `stop`; `reason` says why there are none."""

    def __init__(self, root: Path = ROOT) -> None:
        self._domains = [
            path
            for path in sorted(root.glob("intel-rapl:*"))
            if path.name.count(":") == 1 and _read(path / "energy_uj") is not None
        ]
        self.reason = "" if self._domains else f"no readable {root}/intel-rapl:*/energy_uj"
        self._before: list[int] = []

    def start(self) -> None:
        """Note the counters."""
        self._before = [_read(path / "energy_uj") or 0 for path in self._domains]

    def stop(self) -> float | None:
        """Joules since `start`, or None without counters; a counter may have wrapped once."""
        if not self._domains:
            return None
        total = 0
        for path, before in zip(self._domains, self._before, strict=True):
            spent = (_read(path / "energy_uj") or 0) - before
            if spent < 0:
                spent += _read(path / "max_energy_range_uj") or 0
            total += spent
        return total / 1e6


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
