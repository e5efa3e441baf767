"""`spiketrain eval ppl` of two models."""

import json

import pytest
import tiny
from command_in_process import call


def run(monkeypatch, *arguments):
    """Exit code of the command line."""
    return call(monkeypatch, "eval", "ppl", *arguments)


@pytest.mark.parametrize("family", ["egru", "spikegpt", "spikingbrain"])
def test_parity_of_the_backends_is_within_rounding(tmp_path, monkeypatch, capsys, family):
    pytest.importorskip("torch")
    from spiketrain.lm.export import export_model, family_module

    sizes = {
        "egru": {"embedding_size": 12, "hidden_sizes": [20, 12]},
        "spikegpt": {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32},
        "spikingbrain": {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 48,
            "attn_layers": [1], "sliding_window": 8, "spikes": True,
        },
    }  # fmt: skip
    module = family_module(family)
    module.Model(module.Config(vocab_size=257, **sizes[family])).save_pretrained(tmp_path / "hf")
    text = tmp_path / "plain.txt"
    text.write_text("A fox sat, and an owl flew over it.")
    tokenizer = tiny.tiny_egru_package(tmp_path / "t") / "tokenizer.json"
    arguments = ("--data", text, "--tokenizer", tokenizer, "--prefix-token", "256", "--json")
    assert run(monkeypatch, tmp_path / "hf", "--backend", "torch", "--parity", *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 <= found["largest_nll_difference"] < 1e-4
    windows = ("--protocol", "stride", "--ctx", 8, "--stride", 4, "--backend", "torch", "--parity")
    assert run(monkeypatch, tmp_path / "hf", *arguments, *windows, "--batch", 3) == 0
    batched = json.loads(capsys.readouterr().out)
    assert 0 <= batched["largest_nll_difference"] < 1e-4
    assert found["fingerprint"].startswith("torch-sha256:")
    assert found["baseline_fingerprint"].startswith("sha256:")
    assert found["tokens"] == len(text.read_bytes())
    export_model(module.Model.from_pretrained(tmp_path / "hf"), tmp_path / "p", weights="int8")
    beside = ("--parity", "--checkpoint", tmp_path / "hf")
    assert run(monkeypatch, tmp_path / "p", *beside, *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["largest_nll_difference"] < 1
    assert found["fingerprint"].startswith("sha256:")


def test_a_baseline_is_compared_on_the_same_text(package, text, tmp_path, monkeypatch, capsys):
    other = tiny.tiny_egru_package(tmp_path / "other", seed=4)
    assert run(monkeypatch, package, "--data", text, "--baseline", other, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert run(monkeypatch, package, "--data", text, "--baseline", other) == 0
    table = capsys.readouterr().out
    for part in ("95 % interval", "KL divergence", "same top 1", "sha256:"):
        assert part in table
    bits = []
    for path in (package, other):
        assert run(monkeypatch, path, "--data", text, "--json") == 0
        bits.append(json.loads(capsys.readouterr().out)["bits_per_byte"])
    assert found["difference_bits_per_byte"] == pytest.approx(bits[0] - bits[1])
    assert found["difference_low"] < found["difference_bits_per_byte"] < found["difference_high"]


@pytest.mark.parametrize(
    "arguments",
    [["--baseline", "bundled", "--parity"], ["--parity"], ["--checkpoint", "x"],
     ["--baseline", "bundled", "--resume"]],
)  # fmt: skip
def test_comparisons_that_make_no_sense_are_bad_usage(package, text, monkeypatch, arguments):
    assert run(monkeypatch, package, "--data", text, *arguments) == 2
