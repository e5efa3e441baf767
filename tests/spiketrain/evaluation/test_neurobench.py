"""Our operations and sparsity are those of the neurobench package, where it is installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

for name in ("torch", "neurobench"):
    pytest.importorskip(name, reason=f"{name} is not installed: tools/neurobench_check.py")

SCRIPT = Path(__file__).parents[3] / "tools" / "neurobench_check.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    package = tiny.tiny_egru_package(tmp_path_factory.mktemp("p") / "p", weights="float32")
    command = [sys.executable, SCRIPT, package, "--tokens", "40", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["egru", "spikegpt, projections", "spikingbrain"])
def test_figures_are_neurobench_s(found, name):
    theirs, ours = found[name]["neurobench"], found[name]["explained"]
    assert 0.05 < theirs["activation_sparsity"] < 0.95
    assert ours["Dense"] == theirs["Dense"]
    for key in ("activation_sparsity", "effective_operations"):  # events at a threshold's rounding
        assert ours[key] == pytest.approx(theirs[key], rel=1e-3)


def test_zeros_in_what_is_read_as_a_whole_are_the_only_difference(found):
    theirs = found["spikegpt, residual"]["neurobench"]
    ours = found["spikegpt, residual"]["explained"]
    assert ours["Dense"] == theirs["Dense"]
    assert ours["activation_sparsity"] == pytest.approx(theirs["activation_sparsity"], rel=1e-3)
    assert 1 <= ours["effective_operations"] / theirs["effective_operations"] < 1.002


def test_spikes_are_acs_by_the_input_and_not_by_the_product(found):
    one = found["spikegpt, projections"]
    assert one["ours"]["Effective_ACs"] > 0
    assert one["neurobench"]["Effective_MACs"] > one["ours"]["Effective_MACs"]
