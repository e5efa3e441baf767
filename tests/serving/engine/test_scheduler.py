import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrain.serving.engine.scheduler import Batch, Chunk, Scheduler
from spiketrain.serving.errors import QueueFull


def scheduler(batch=2, queue=2, chunk=4, idle=8):
    return Scheduler(batch, queue, chunk, idle)


def run(scheduler):
    batch = scheduler.next_batch()
    scheduler.commit(batch)
    return batch


def test_a_prompt_is_read_in_chunks_then_decoded():
    s = scheduler(idle=8)
    s.submit("a", 10)
    assert run(s) == Batch(("a",), (Chunk("a", 0, 8, last=False),), ())
    assert run(s) == Batch((), (Chunk("a", 8, 10, last=True),), ())
    assert run(s) == Batch((), (), ("a",))


def test_chunks_are_small_while_others_decode():
    s = scheduler(chunk=4, idle=8)
    s.submit("a", 1)
    run(s)
    s.submit("long", 100)
    for _ in range(5):
        batch = run(s)
        assert batch.decode == ("a",)
        assert sum(chunk.stop - chunk.start for chunk in batch.chunks) == 4


def test_prompts_take_turns_so_that_a_long_one_does_not_hold_up_a_short_one():
    s = scheduler(idle=8)
    s.submit("long", 1000)
    run(s)
    s.submit("short", 3)
    run(s)
    assert Chunk("short", 0, 3, last=True) in run(s).chunks
    assert "short" in run(s).decode


def test_several_short_prompts_share_a_batch():
    s = scheduler(batch=3, idle=8)
    for key, length in (("a", 3), ("b", 3), ("c", 3)):
        s.submit(key, length)
    assert [(c.key, c.stop, c.last) for c in run(s).chunks] == [
        ("a", 3, True),
        ("b", 3, True),
        ("c", 2, False),
    ]


def test_requests_beyond_the_slots_wait_in_order_of_arrival():
    s = scheduler(batch=1, queue=2)
    for key in "abc":
        s.submit(key, 1)
    assert run(s).admitted == ("a",)
    assert (s.num_running, s.num_waiting) == (1, 2)
    s.remove("a")
    assert run(s).admitted == ("b",)


def test_a_full_queue_refuses():
    s = scheduler(batch=1, queue=1)
    s.submit("a", 1)
    s.submit("b", 1)
    with pytest.raises(QueueFull, match="1 requests"):
        s.submit("c", 1)
    run(s)
    with pytest.raises(QueueFull):
        s.submit("c", 1)
    s.remove("a")
    s.submit("c", 1)


@pytest.mark.parametrize("rounds", [0, 1, 2, 3], ids=["waiting", "prefill", "prefilled", "decode"])
def test_removing_frees_the_slot_in_every_phase(rounds):
    s = scheduler(batch=1, queue=0, idle=2)
    s.submit("a", 4)
    for _ in range(rounds):
        run(s)
    assert s.remove("a")
    assert not s.remove("a")
    assert s.num_running == s.num_waiting == 0
    assert not s.next_batch()
    s.submit("b", 1)
    assert run(s).admitted == ("b",)


def test_what_is_removed_while_its_batch_runs_is_forgotten():
    s = scheduler()
    s.submit("a", 1)
    batch = s.next_batch()
    s.remove("a")
    s.commit(batch)
    assert not s.next_batch()


def test_a_paused_sequence_keeps_its_slot_but_is_left_out():
    s = scheduler(batch=1, queue=1)
    s.submit("a", 1)
    s.submit("b", 1)
    run(s)
    s.pause("a")
    assert not s.next_batch()
    s.resume("a")
    assert s.next_batch().decode == ("a",)
    s.resume("gone")


actions = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 40)),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("run"), st.just(0)),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(actions=actions, batch=st.integers(1, 4), queue=st.integers(0, 3))
def test_whatever_happens_no_slot_is_lost_and_every_prompt_token_is_read_once(
    actions, batch, queue
):
    s = Scheduler(batch, queue, 3, 5)
    prompts, read = {}, {}
    for action, value in actions:
        if action == "submit":
            key = len(prompts)
            prompts[key] = value
            try:
                s.submit(key, value)
            except QueueFull:
                assert s.num_waiting >= queue
                continue
            read[key] = 0
        elif action == "remove":
            if s.remove(value):
                del read[value]
        else:
            for chunk in run(s).chunks:
                assert chunk.start == read[chunk.key]
                read[chunk.key] = chunk.stop
        assert s.num_running <= batch
        assert s.num_running + s.num_waiting == len(read) <= batch + queue
    while any(read[key] < prompts[key] for key in read):
        done = run(s)
        for chunk in done.chunks:
            read[chunk.key] = chunk.stop
        for key in done.decode:
            s.remove(key)
            assert read.pop(key) == prompts[key]


def test_what_was_read_before_is_skipped_and_chunks_end_at_marks():
    s = scheduler(idle=8)
    s.submit("a", 20, position=3, marks=(5, 10, 12))
    chunks = [run(s).chunks[0] for _ in range(4)]
    assert [(c.start, c.stop, c.last) for c in chunks] == [
        (3, 5, False),
        (5, 10, False),
        (10, 12, False),
        (12, 20, True),
    ]


def test_an_empty_prompt_is_one_empty_chunk():
    s = scheduler()
    s.submit("a", 0)
    assert run(s).chunks == (Chunk("a", 0, 0, last=True),)
    assert run(s).decode == ("a",)


def test_less_is_read_where_it_would_take_too_long():
    s = scheduler(chunk=4, idle=8)
    s.submit("a", 20)
    assert s.next_batch(most_while_decoding=1, most_idle=6).chunks[0].stop == 6
    s = scheduler(chunk=4, idle=8)
    s.submit("a", 1)
    run(s)
    s.submit("b", 20)
    assert s.next_batch(most_while_decoding=3).chunks[0].stop == 3
    assert s.next_batch(most_while_decoding=30).chunks[0].stop == 4
