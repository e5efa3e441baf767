"""Variants run in turns, and are compared round by round."""

import pytest
from harness import Sample, Spread, in_turns, repeated, timed


def replay(*wall_s, log=None, name=""):
    """A variant that takes these times, one a round."""
    times = iter(wall_s)

    def measure():
        if log is not None:
            log.append(name)
        seconds = next(times)
        return Sample(seconds, 2 * seconds)

    return measure


def test_every_variant_runs_in_every_round_and_the_order_is_reversed_in_between():
    log = []
    variants = {name: replay(*range(9), log=log, name=name) for name in "abc"}
    in_turns(variants, rounds=3, warm_up=0)
    assert "".join(log) == "abccbaabc"


def test_rounds_that_warm_up_do_not_count():
    turns = in_turns({"a": replay(100.0, 90.0, 1.0, 2.0, 4.0)}, rounds=3, warm_up=2)
    assert turns.wall_s("a") == Spread(median=2.0, min=1.0, max=4.0)
    assert turns.processor_s("a") == Spread(median=4.0, min=2.0, max=8.0)


def test_ratios_are_taken_within_a_round_before_their_median():
    # The machine is ten times as slow in the second round: ratios of medians would say 15.
    turns = in_turns(
        {"first": replay(1.0, 10.0, 1.0), "second": replay(2.0, 15.0, 20.0)}, rounds=3, warm_up=0
    )
    assert turns.wall_ratio("second") == Spread(median=2.0, min=1.5, max=20.0)
    assert turns.wall_ratio("first") == Spread(1.0, 1.0, 1.0)
    assert turns.wall_ratio("first", to="second").median == 0.5
    assert turns.processor_ratio("second").median == 2.0


def test_no_time_over_no_time_is_one():
    turns = in_turns({"a": replay(0.0, 0.0), "b": replay(0.0, 1.0)}, rounds=2, warm_up=0)
    assert turns.wall_ratio("b") == Spread(median=float("inf"), min=1.0, max=float("inf"))


@pytest.mark.parametrize(("variants", "rounds"), [({}, 1), ({"a": replay()}, 0)])
def test_nothing_to_measure_is_an_error(variants, rounds):
    with pytest.raises(ValueError, match="must"):
        in_turns(variants, rounds)


def test_a_run_is_timed_for_each_of_its_units(fake):
    assert timed(fake.work(6.0, 9.0), units=3, clock=fake.clock) == Sample(2.0, 3.0)


def test_a_call_is_repeated_for_its_budget_and_its_first_time_does_not_count(fake):
    durations = iter([1000.0, 1.0, 3.0, 2.0, 8.0, 7.0])

    def work():
        fake.work(next(durations), 1.0)()

    assert repeated(work, 10.0, fake.clock) == Sample(2.5, 1.0)  # the fourth passes 10 seconds


def test_a_call_longer_than_its_budget_is_made_three_times(fake):
    calls = []

    def work():
        calls.append(None)
        fake.work(5.0)()

    assert repeated(work, 1.0, fake.clock).wall_s == 5.0
    assert len(calls) == 4
