"""Variants that run in turns, and what their times say about each other.

Other work on the machine, its clock and its memory's speed change within minutes. Every variant
therefore runs in every round, and ratios are taken within a round before their median is.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

MIN_REPEATS = 3


@dataclass(frozen=True)
class Clock:
    """Where seconds come from: elapsed ones, and those of the processor in all threads."""

    wall: Callable[[], float] = time.perf_counter
    processor: Callable[[], float] = time.process_time


@dataclass(frozen=True)
class Sample:
    """Elapsed and processor seconds of one run, for each of its units (a token, a call)."""

    wall_s: float
    processor_s: float


Measure = Callable[[], Sample]
SYSTEM = Clock()


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of the rounds."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one value."""
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))


class Turns:
    """Samples by variant, in the order of the rounds; the first variant is the yardstick."""

    def __init__(self, samples: Mapping[str, list[Sample]]) -> None:
        self.samples = dict(samples)

    @property
    def first(self) -> str:
        """The name of the first variant."""
        return next(iter(self.samples))

    def wall_s(self, name: str) -> Spread:
        """Elapsed seconds a unit."""
        return Spread.of(sample.wall_s for sample in self.samples[name])

    def processor_s(self, name: str) -> Spread:
        """Processor seconds a unit."""
        return Spread.of(sample.processor_s for sample in self.samples[name])

    def wall_ratio(self, name: str, to: str | None = None) -> Spread:
        """Elapsed time of `name` over that of `to`, within rounds; `to` defaults to the first."""
        pairs = zip(self.samples[name], self.samples[to or self.first], strict=True)
        return Spread.of(_ratio(one.wall_s, other.wall_s) for one, other in pairs)

    def processor_ratio(self, name: str, to: str | None = None) -> Spread:
        """The same of processor time."""
        pairs = zip(self.samples[name], self.samples[to or self.first], strict=True)
        return Spread.of(_ratio(one.processor_s, other.processor_s) for one, other in pairs)


def _ratio(one: float, other: float) -> float:
    """Two times that are both 0 are alike."""
    if other == 0.0:
        return 1.0 if one == 0.0 else float("inf")
    return one / other


def in_turns(variants: Mapping[str, Measure], rounds: int, warm_up: int = 1) -> Turns:
    """Run every variant in every round, after `warm_up` rounds that do not count.

    The order is reversed from round to round, so that no variant always follows the same one.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    if not variants:
        raise ValueError("variants must name at least one, got none")
    samples: dict[str, list[Sample]] = {name: [] for name in variants}
    order = list(variants)
    for number in range(-warm_up, rounds):
        for name in order:
            sample = variants[name]()
            if number >= 0:
                samples[name].append(sample)
        order.reverse()
    return Turns(samples)


def timed(work: Callable[[], object], units: int = 1, clock: Clock = SYSTEM) -> Sample:
    """Time one call that does so many units."""
    processor, wall = clock.processor(), clock.wall()
    work()
    wall, processor = clock.wall() - wall, clock.processor() - processor
    return Sample(wall / units, processor / units)


def repeated(work: Callable[[], object], budget_s: float, clock: Clock = SYSTEM) -> Sample:
    """Medians of calls over about `budget_s` seconds, at least three, after one that warms up."""
    work()
    samples: list[Sample] = []
    end = clock.wall() + budget_s
    while clock.wall() < end or len(samples) < MIN_REPEATS:
        samples.append(timed(work, clock=clock))
    return Sample(
        statistics.median(sample.wall_s for sample in samples),
        statistics.median(sample.processor_s for sample in samples),
    )
