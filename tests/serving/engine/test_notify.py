"""When a reader is woken: plain jobs, no clock."""

from math import inf

from spiketrain.serving.engine.job import Job, Origin
from spiketrain.serving.engine.notify import left_to_gather_s


def job():
    return Job((1,), Origin(), 0.0, None, None)


def test_a_reader_is_woken_once_for_what_is_new_and_once_more_for_the_end():
    j = job()
    assert j.due()
    assert not j.due()
    j.close("end")
    assert j.due()
    assert not j.due()


def test_tokens_gather_until_the_interval_after_the_last_message():
    j = job()
    assert left_to_gather_s(j, 100.0, 0.008) == 0.0, "nothing was taken yet"
    j.taken_s = 100.0
    assert abs(left_to_gather_s(j, 100.0, 0.008) - 0.008) < 1e-9
    assert abs(left_to_gather_s(j, 100.005, 0.008) - 0.003) < 1e-9
    assert left_to_gather_s(j, 100.008, 0.008) == 0.0
    assert left_to_gather_s(j, 200.0, 0.008) == 0.0, "a slow model's tokens go out at once"


def test_the_end_does_not_wait():
    j = job()
    j.taken_s = 100.0
    j.close("end")
    assert left_to_gather_s(j, 100.0, 0.008) == 0.0


def test_without_a_deadline_time_never_runs_out():
    assert job().expires_s == inf
    assert Job((1,), Origin(), 2.0, None, 3.0).expires_s == 5.0
