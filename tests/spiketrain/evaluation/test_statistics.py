import math

import numpy as np
import pytest

from spiketrain.evaluation.statistics import choose_units, ratio_error, standard_error


def test_the_error_of_equal_units_is_that_of_a_mean():
    values = [3.0, 5.0, 4.0, 8.0]
    expected = np.std(values, ddof=1) / math.sqrt(4) / 10
    assert ratio_error([(v, 10) for v in values]) == pytest.approx(expected)


def test_the_error_agrees_with_repeated_sampling():
    rng = np.random.default_rng(3)
    tokens = rng.integers(50, 150, 400)
    nats = tokens * 3.0 + rng.normal(0, 20, 400)
    estimates = []
    for _ in range(2000):
        chosen = rng.integers(0, 400, 400)
        estimates.append(nats[chosen].sum() / tokens[chosen].sum())
    found = ratio_error(list(zip(nats.tolist(), tokens.tolist(), strict=True)))
    assert found == pytest.approx(np.std(estimates), rel=0.08)


def test_documents_are_the_units_where_there_are_enough():
    blocks = [(1.0, 5)] * 30
    assert choose_units([(1.0, 2)] * 10 + [(0.0, 0)], blocks) == ([(1.0, 2)] * 10, "documents")
    assert choose_units([(1.0, 2)] * 9, blocks)[1] == "blocks of 512 tokens"


def test_one_unit_has_no_error():
    found = standard_error([(2.0, 4)], [(2.0, 4)])
    assert (found.nats_per_token, found.count) == (None, 1)
