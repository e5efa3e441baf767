"""Fixtures of kernel tests."""

import pytest

from spiketrain.runtime.kernels import products
from spiketrain.runtime.kernels.isa import dispatch


@pytest.fixture(params=dispatch.runnable(), scope="module")
def build(request):
    """Every instruction-set build that runs here, one after another."""
    before = dispatch.active()
    dispatch.select(request.param)
    yield request.param
    dispatch.select(before)


@pytest.fixture(scope="module")
def pools():
    """Pools of so many threads."""
    return {threads: products.Pool(threads) for threads in (1, 2, 3)}
