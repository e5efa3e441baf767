"""Variants in processes of their own."""

import sys

import pytest
from harness import Worker, in_turns

SERVE = """
import sys
sys.path.insert(0, {folder!r})
from harness import serve

def idle(units):
    print("a library's greeting", flush=True)

def fail(units):
    sys.exit(3)

serve({{"idle": idle, "fail": fail}})
"""


@pytest.fixture
def command():
    import harness

    folder = str(next(iter(harness.__path__)))
    return [sys.executable, "-c", SERVE.format(folder=folder.rpartition("/")[0])]


def test_two_workers_stay_alive_and_take_turns(command):
    with Worker(command) as one, Worker(command) as other:
        variants = {"one": one.variant("idle", 10), "other": other.variant("idle", 10)}
        turns = in_turns(variants, rounds=2)
        assert {name: len(samples) for name, samples in turns.samples.items()} == {
            "one": 2,
            "other": 2,
        }
        assert turns.wall_s("one").min >= 0.0
        assert one.machine["versions"]["python"]


def test_a_worker_that_ends_is_an_error_with_its_status(command):
    with Worker(command) as worker, pytest.raises(RuntimeError, match="ended with status 3"):
        worker.measure("fail", 1)


def test_a_worker_that_does_not_start_is_an_error_with_its_status():
    with pytest.raises(RuntimeError, match="ended with status 7"):
        Worker([sys.executable, "-c", "raise SystemExit(7)"])
