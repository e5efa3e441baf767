"""Events for a reader without an event loop: a fake model in a real engine."""

import os
import signal
import threading

import pytest
from fake_model import FakeModel

from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.engine.sync_stream import sync_stream
from spiketrain.serving.request.events import Delta, Finish, PromptInfo, join
from spiketrain.serving.request.request import Request


def serving(model=None):
    return Engine(model or FakeModel(), ServingConfig(flush_interval_s=0.0, max_batch_size=3))


def test_the_events_are_those_of_a_stream():
    with serving() as engine, sync_stream(engine, Request("abc", seed=1)) as events:
        found = list(events)
    assert isinstance(found[0], PromptInfo)
    assert isinstance(found[-1], Finish)
    assert "".join(event.text for event in found if isinstance(event, Delta)) == "hello world"


def test_several_completions_come_together():
    with serving() as engine, sync_stream(engine, Request("abc", seed=1, n=3)) as events:
        found = join(events)
    assert [completed.finish.index for completed in found] == [0, 1, 2]
    assert {completed.text for completed in found} == {"hello world"}


@pytest.mark.parametrize("n", [1, 3])
def test_leaving_early_frees_the_slot(n):
    model = FakeModel(gate=threading.Semaphore(0))
    with serving(model) as engine:
        with sync_stream(engine, Request("abc", n=n)) as events:
            if n == 1:
                next(events)
            assert engine.num_running + engine.num_waiting == 1
        assert engine.num_running + engine.num_waiting == 0
        model.gate.release(1000)


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt, even if whoever started the tests ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def wait_and_interrupt(engine):
    with sync_stream(engine, Request("abc")) as events:
        next(events)
        threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
        next(events)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_frees_the_slot():
    model = FakeModel(gate=threading.Semaphore(0))
    with serving(model) as engine:
        with pytest.raises(KeyboardInterrupt):
            wait_and_interrupt(engine)
        assert engine.num_running + engine.num_waiting == 0
        model.gate.release(1000)
