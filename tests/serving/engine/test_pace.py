from spiketrain.serving.engine.pace import FIRST_TOKENS, MIN_TOKENS, Pace


def test_before_anything_was_measured_a_little_is_read():
    assert Pace().tokens_in(10.0, 512) == FIRST_TOKENS
    assert Pace().tokens_in(10.0, 5) == 5


def test_as_much_is_read_as_fits_the_time():
    pace = Pace()
    pace.measure(100, 1.0)
    assert pace.tokens_in(0.5, 512) == 50
    assert pace.tokens_in(0.5, 20) == 20
    assert pace.tokens_in(5.12, 512) == 512


def test_a_slow_model_still_reads_its_prompt():
    pace = Pace()
    pace.measure(1, 100.0)
    assert pace.tokens_in(0.01, 512) == MIN_TOKENS


def test_a_clock_that_stands_still_sets_no_limit():
    pace = Pace()
    pace.measure(10, 0.0)
    assert pace.tokens_in(0.01, 512) == 512


def test_one_slow_moment_is_soon_forgotten():
    pace = Pace()
    pace.measure(100, 1.0)
    pace.measure(100, 100.0)
    for _ in range(30):
        pace.measure(100, 1.0)
    assert pace.tokens_in(1.0, 512) > 90
