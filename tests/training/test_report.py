"""The report says what the runs measured."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

pytest.importorskip("matplotlib")

from spiketrain.training.report import write_report

RESULT = {
    "parameters": 1000,
    "tokens": 5000,
    "seconds": 120.0,
    "valid_bits_per_byte": 1.6,
    "valid_firing_rates": [0.1, 0.3],
    "test_bits_per_byte": 1.7,
    "test_firing_rates": [0.1, 0.3],
}


@pytest.fixture
def runs(tmp_path):
    def put(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    config = {
        "model": {"hidden_sizes": [24, 16]},
        "optimizer": {"betas": [0.0, 0.999]},
        "data": {"train": "/secret/train.txt"},
    }
    taught = config | {"distil": {"teacher": "/secret/lstm-1e-2", "weight": 0.3}}
    put(tmp_path / "stories-egru" / "config.json", taught)
    put(tmp_path / "stories-egru" / "result.json", RESULT)
    put(tmp_path / "alone" / "result.json", RESULT | {"test_bits_per_byte": 1.4321})
    put(tmp_path / "lstm-5e-3" / "config.json", config)
    put(tmp_path / "lstm-1e-2" / "config.json", config)
    put(tmp_path / "lstm-5e-3" / "result.json", RESULT)
    put(
        tmp_path / "lstm-1e-2" / "result.json",
        RESULT | {"valid_bits_per_byte": 1.58, "test_bits_per_byte": 1.48},
    )
    for name in ("penalty-0.01", "penalty-0"):
        put(tmp_path / name / "config.json", config)
        put(tmp_path / name / "result.json", RESULT)
    for name, bits in (("int8", 1.5012), ("float32", 1.4987)):
        package = {"bits_per_byte": bits, "firing_rates": [0.1, 0.3], "data": "/secret/x"}
        put(tmp_path / f"{name}.json", package)
    (tmp_path / "int8").mkdir()
    tensors = {"head": np.zeros((30, 40), np.int8), "scale": np.ones(30, np.float32)}
    save_file(tensors, tmp_path / "int8" / "model.safetensors")
    return tmp_path


def test_the_card_shows_what_was_measured(runs):
    report = write_report(runs, runs / "report")
    card = (runs / "report" / "README.md").read_text()
    for text in (
        "1.5012",
        "1.4987",
        "LSTM of 1,000 parameters, float32 | 1.4800",
        "5,000",
        "1,230 numbers",
        "0.0212 bits per byte more",
        "30% of its loss",
        "without a teacher, float32 | 1.4321 | 82.0 %",
        "Without one it needs 0.0479 bits per byte less",
        "82.0 %",
        "layer 2: 70.0 %",
        "mean 80.0 %",
        "0.005 with betas 0 and 0.999 (1.6000 on `valid`, 1.7000 on `test`), 0.01 with",
        "(1.5800",
    ):
        assert text in card
    assert [point["penalty"] for point in report["activity_curve"]] == [0.0, 0.01]
    assert json.loads((runs / "report" / "report.json").read_text()) == report
    assert "/secret" not in (runs / "report" / "report.json").read_text()
    assert (runs / "report" / "activity.png").stat().st_size > 1000


def test_one_layer_is_called_so(runs):
    result = RESULT | {"valid_firing_rates": [0.1], "test_firing_rates": [0.1]}
    path = runs / "stories-egru" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": {"hidden_sizes": [24]}}))
    for name in ("stories-egru", "alone", "penalty-0", "penalty-0.01"):
        (runs / name / "result.json").write_text(json.dumps(result))
    for name in ("int8", "float32"):
        package = {"bits_per_byte": 1.5, "firing_rates": [0.1]}
        (runs / f"{name}.json").write_text(json.dumps(package))
    write_report(runs, runs / "report")
    card = (runs / "report" / "README.md").read_text()
    assert "one EGRU layer of 24 units" in card
    assert "| 90.0 % |" in card


def test_a_missing_run_is_named(runs):
    (runs / "stories-egru" / "result.json").unlink()
    with pytest.raises(FileNotFoundError, match="stories-egru"):
        write_report(runs, runs / "report")
