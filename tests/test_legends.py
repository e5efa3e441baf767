"""Pictures are drawn alike on a busy machine.

Where matplotlib looks for the best place of a legend, it warns if that takes long.
"""

import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def no_search(monkeypatch):
    def search(*arguments):
        raise AssertionError("a legend has no place of its own")

    monkeypatch.setattr("matplotlib.legend.Legend._find_best_position", search)


def test_the_legends_of_a_training_run_have_a_place(tmp_path):
    pytest.importorskip("torch")
    from spiketrain.training.plots import plot_curves

    step = {"tokens": 1000, "loss": 2.0, "firing_rates": [0.1]}
    lines = [step, {"tokens": 1000, "valid_nll": 2.1}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    plot_curves(tmp_path / "log.jsonl", tmp_path / "curves.png", "run")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_legend_of_an_activity_curve_has_a_place(tmp_path):
    pytest.importorskip("torch")
    from spiketrain.training.plots import plot_activity

    points = [
        {"penalty": penalty, "valid_firing_rates": [0.1], "valid_bits_per_byte": 1.5}
        for penalty in (0.0, 0.1)
    ]
    report = {
        "activity_curve": points,
        "lstm": {"valid_bits_per_byte": 1.4},
        "egru_config": {"model": {"hidden_sizes": [4]}},
    }
    plot_activity(report, tmp_path / "activity.png")
    assert (tmp_path / "activity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("largest", [3, 3000])
def test_the_legend_of_a_histogram_of_counts_has_a_place(largest):
    from spiketrain.evaluation.pictures import count_histogram

    counts = np.arange(-largest, largest, dtype=np.int32)
    assert count_histogram({"layers.0": counts}).startswith(b"\x89PNG")
