"""What every benchmark shares: variants in turns, medians, one table, one JSON file.

- `turns`: runs variants in turns and compares them round by round;
- `workers`: variants in processes of their own, under other Pythons;
- `machine`: what the figures were measured on;
- `output`: the command line, the table and the file.
"""

from harness.machine import runtime_module
from harness.output import Report, parser
from harness.turns import Clock, Measure, Sample, Spread, Turns, in_turns, repeated, timed
from harness.workers import Worker, serve

__all__ = [
    "Clock",
    "Measure",
    "Report",
    "Sample",
    "Spread",
    "Turns",
    "Worker",
    "in_turns",
    "parser",
    "repeated",
    "runtime_module",
    "serve",
    "timed",
]
