import json

import numpy as np
import tiny
from command_in_process import call
from tiny_spikegpt import tiny_spikegpt_package
from tiny_spikingbrain import tiny_spikingbrain_package

from spiketrain.runtime.package import write_package


def test_json_says_what_is_in_a_package(tmp_path, monkeypatch, capsys):
    package = tiny.tiny_egru_package(tmp_path / "p", hidden_sizes=(8, 16))
    assert call(monkeypatch, "inspect", package, "--json") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert found["family"] == "egru"
    assert found["fidelity"] == "integer"
    assert found["max_dial"] == 1.0
    assert found["state_bytes"] == 6 * 24
    assert found["tensors"]["head.weight"] == {
        "dtype": "int8",
        "shape": [16, 257],
        "bytes": 16 * 257,
    }
    assert found["tensor_bytes"] == sum(t["bytes"] for t in found["tensors"].values())
    assert found["tokenizer"]["vocab_size"] == 257
    assert found["files"]["config.json"] > 100
    assert found["provenance"]["licence"] == "Apache-2.0"


def test_a_range_of_dials_is_shown_with_what_it_costs(tmp_path, monkeypatch, capsys):
    for make, fields, formula in (
        (tiny_spikegpt_package, {"neuron_position": "projections"}, " + 4 for the dial = "),
        (tiny_spikingbrain_package, {}, " + 64 for the dial + "),
    ):
        package = make(tmp_path / make.__name__, max_dial=2.5, **fields)
        assert call(monkeypatch, "inspect", package, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["max_dial"] == 2.5
        assert formula in found["state_formula"]
        assert found["state_formula"].endswith(f" {found['state_bytes']} bytes")


def test_tables_name_every_tensor(tmp_path, monkeypatch, capsys):
    package = tiny.tiny_egru_package(tmp_path / "p", with_tokenizer=False)
    assert call(monkeypatch, "inspect", package) == 0
    out = capsys.readouterr().out
    for text in ("layers.2.recurrent.weight", "(4 + 2) bytes * 73 units = 438 bytes", "integer"):
        assert text in out


def test_what_a_package_says_cannot_drive_the_terminal(tmp_path, monkeypatch, capsys):
    config = tiny.egru_config("int8", True, False, 9, (4,), 4)
    config["spiketrain"]["provenance"] = {"source": "\x1b]0;owned\x07[red]x[/red]"}
    tensors = {name: np.array(array) for name, array in tiny.egru_tensors(config).items()}
    write_package(tmp_path / "p", config, tensors)
    assert call(monkeypatch, "inspect", tmp_path / "p") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[red]x[/red]" in out


def test_a_bad_package_is_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, "inspect", tmp_path / "absent") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert call(monkeypatch, "inspect", tmp_path, "--colour") == 2
