"""The scripts' folder on the path, after everything else: a script there is called training.py."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))


class FakeClock:
    """Seconds that pass only when work says so; `clock` is the harness's view of them."""

    def __init__(self):
        from harness import Clock

        self.wall_s = self.processor_s = 0.0
        self.clock = Clock(lambda: self.wall_s, lambda: self.processor_s)

    def work(self, wall_s, processor_s=0.0):
        def work():
            self.wall_s += wall_s
            self.processor_s += processor_s

        return work


@pytest.fixture
def fake():
    return FakeClock()
