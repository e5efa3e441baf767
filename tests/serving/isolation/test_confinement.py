"""What a program in a process of its own does to nobody else."""

import os
import signal
import subprocess
import sys
import threading
import time

import hostile_program
import psutil
import pytest
from fake_model import PATIENCE_S

from spiketrain.serving.errors import ConfinementFailed, Draining, TooManyQuestions
from spiketrain.serving.isolation.confined_process import Limits, Refused
from spiketrain.serving.isolation.confinement import MAX_RUNNING, MAX_WAITING, Confinement, Died

LIMITS = Limits(cpu_s=0.3, wall_s=30.0, memory_bytes=256 << 20)


@pytest.fixture
def confinement():
    opened = Confinement(hostile_program, lambda: b"hello ", LIMITS)
    yield opened
    opened.close()


def parent_of_children(confinement):
    return confinement._process._popen.pid


def test_an_answer_comes_back_whatever_its_length(confinement):
    assert confinement.ask(b"echo world") == b"hello world"
    assert confinement.ask(b"long 5000000") == bytes(5_000_000)
    assert confinement.ask(b"echo " + bytes(3_000_000)) == b"hello " + bytes(3_000_000)


def test_each_question_has_a_process_of_its_own(confinement):
    assert len({confinement.ask(b"pid") for _ in range(5)}) == 5


def test_a_refusal_is_told_from_an_accident(confinement):
    with pytest.raises(Refused, match="because"):
        confinement.ask(b"refuse because")


@pytest.mark.parametrize(
    ("question", "what"),
    [
        (b"crash", "crashes its library \\(SIGSEGV\\)"),
        (b"spin", "takes more than 0.3 s of work"),
        (b"allocate", "MemoryError"),
        (b"panic", "fails in its library \\(Panic: wat\\)"),
    ],
)
def test_an_accident_costs_its_question_alone(confinement, question, what):
    confinement.warm()
    before = parent_of_children(confinement)
    with pytest.raises(Died, match=what):
        confinement.ask(question)
    assert confinement.ask(b"echo again") == b"hello again"
    assert parent_of_children(confinement) == before


def test_what_waits_for_ever_is_ended_by_the_clock():
    confinement = Confinement(hostile_program, lambda: b"", Limits(9.0, 0.2, 256 << 20))
    with pytest.raises(Died, match="takes more than"):
        confinement.ask(b"sleep")
    confinement.close()


def test_a_process_that_died_is_replaced(confinement):
    confinement.warm()
    dead = psutil.Process(parent_of_children(confinement))
    dead.kill()
    confinement._process._popen.wait(PATIENCE_S)
    assert confinement.ask(b"echo again") == b"hello again"
    assert parent_of_children(confinement) != dead.pid


def test_a_spare_child_that_was_killed_is_replaced(confinement):
    confinement.warm()
    spare = psutil.Process(parent_of_children(confinement)).children()
    for child in spare:
        child.kill()
    assert psutil.wait_procs(spare, PATIENCE_S)[1] == []
    assert confinement.ask(b"echo again") == b"hello again"


def test_a_hanging_question_does_not_hold_others_up(confinement):
    hung = threading.Thread(target=pytest.raises, args=(Died, confinement.ask, b"spin"))
    hung.start()
    assert confinement.ask(b"echo meanwhile") == b"hello meanwhile"
    hung.join()


def test_no_more_questions_wait_than_may():
    confinement = Confinement(hostile_program, lambda: b"", Limits(9.0, 60.0, 256 << 20))
    confinement.warm()
    ends = []

    def ask():
        try:
            confinement.ask(b"sleep")
        except (Died, Draining, ConfinementFailed) as error:
            ends.append(error)

    threads = [threading.Thread(target=ask) for _ in range(MAX_RUNNING + MAX_WAITING)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while confinement._turns.num_waiting < MAX_WAITING and time.monotonic() < deadline:
        os.sched_yield()
    with pytest.raises(TooManyQuestions):
        confinement.ask(b"echo")
    confinement.close()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(ends) == len(threads)


def test_a_program_that_cannot_be_loaded_says_why():
    with pytest.raises(ConfinementFailed, match="no such setup"):
        Confinement(hostile_program, lambda: b"broken", LIMITS).ask(b"echo")


def test_closing_ends_the_process_and_its_children(confinement):
    confinement.warm()
    parent = psutil.Process(parent_of_children(confinement))
    family = [parent, *parent.children()]
    confinement.close()
    assert psutil.wait_procs(family, PATIENCE_S)[1] == []
    with pytest.raises(Draining):
        confinement.ask(b"echo")


SERVER = """
import sys
sys.path[:] = {path!r}
import hostile_program
from spiketrain.serving.isolation.confined_process import Limits
from spiketrain.serving.isolation.confinement import Confinement
confinement = Confinement(hostile_program, lambda: b"", Limits(600.0, 600.0, 1 << 28))
confinement.warm()
print(confinement._process._popen.pid, flush=True)
confinement.ask(b"sleep")
"""


def test_nothing_outlives_a_server_that_is_killed():
    code = SERVER.format(path=[*map(str, sys.path)])
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as server:
        parent = psutil.Process(int(server.stdout.readline()))
        deadline = time.monotonic() + PATIENCE_S
        while len(parent.children()) < 2 and time.monotonic() < deadline:  # the asked and a spare
            os.sched_yield()
        family = [parent, *parent.children()]
        assert len(family) == 3
        server.send_signal(signal.SIGKILL)
    assert psutil.wait_procs(family, PATIENCE_S)[1] == []
