"""Questions at a limited process: no caller takes the places of all others."""

import threading

import pytest
from fake_model import PATIENCE_S

from spiketrain.serving.errors import TooManyQuestions
from spiketrain.serving.isolation.question_turns import QuestionTurns


class Asking:
    """Questions in threads of their own, each of which ends when told."""

    def __init__(self, turns):
        self._turns = turns
        self._threads = []

    def start(self, caller):
        """Ask; returns what is set once the question has a place, and what ends it."""
        placed, ending = threading.Event(), threading.Event()

        def ask():
            with self._turns.turn(caller):
                placed.set()
                ending.wait(PATIENCE_S)

        self._threads.append(threading.Thread(target=ask))
        self._threads[-1].start()
        return placed, ending

    def join(self):
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def wait_until(condition):
    tick = threading.Event()
    for _ in range(round(PATIENCE_S / 0.001)):
        if condition():
            return
        tick.wait(0.001)
    raise AssertionError("it has not come to that")


def test_a_caller_with_a_name_runs_and_waits_in_half_of_the_places():
    turns = QuestionTurns(4, 2)
    asking = Asking(turns)
    running = [asking.start("alice") for _ in range(2)]
    assert all(placed.wait(PATIENCE_S) for placed, _ in running)
    placed, ending = asking.start("alice")
    wait_until(lambda: turns.num_waiting == 1)
    with pytest.raises(TooManyQuestions, match=r"^1 requests wait"), turns.turn("alice"):
        pass
    with turns.turn("bob"):  # at once, though alice waits
        assert turns.num_running == 3
    assert not placed.is_set()
    running[0][1].set()
    assert placed.wait(PATIENCE_S)
    for _, end in running:
        end.set()
    ending.set()
    asking.join()
    assert (turns.num_running, turns.num_waiting) == (0, 0)


def test_callers_without_names_share_all_places():
    turns = QuestionTurns(4, 2)
    asking = Asking(turns)
    running = [asking.start("") for _ in range(4)]
    assert all(placed.wait(PATIENCE_S) for placed, _ in running)
    waiting = [asking.start("") for _ in range(2)]
    wait_until(lambda: turns.num_waiting == 2)
    with pytest.raises(TooManyQuestions, match=r"^2 requests wait"), turns.turn(""):
        pass
    for _, end in (*running, *waiting):
        end.set()
    asking.join()
    assert (turns.num_running, turns.num_waiting) == (0, 0)
