"""`spiketrain convert FILE.gguf`: copies and spiking packages, made without torch."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_in_process import call
from golden_gguf import NAMES, golden_arrays, golden_file, golden_json

from spiketrain.lm.conversion.gguf import check_state_memory, gguf_spec
from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.model import load_model
from spiketrain.runtime.tokenizer import load_tokenizer

RECIPE = ("--recipe", "transformer-to-spiking")
EXACT = (*RECIPE, "--no-spikes", "--weights", "float32")
SMALL = "llama_gqa_tied"  # 64 tokens of context
COMPLETE = [name for name in NAMES if "logits" in golden_arrays(name)]
WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "safetensors"):
    sys.modules[name] = None
from spiketrain.cli import main
sys.argv = ["spiketrain", *sys.argv[1:]]
main()
"""


def without_torch(*arguments):
    """The command line in a process that cannot import torch."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys):
    """Convert a golden file into "package" and return its path; the errors if that fails."""

    def run(name, *options):
        target = tmp_path / "package"
        code = call(monkeypatch, "convert", golden_file(tmp_path, name), target, *options)
        errors = capsys.readouterr().err
        assert target.exists() == (code == 0), errors
        return errors if code else target

    return run


def logits_of(package, tokens):
    model = load_model(package)
    return model.forward(model.new_state(), tokens)


def config_of(package):
    return json.loads((package / "config.json").read_text())


@pytest.mark.parametrize("name", COMPLETE)
def test_a_copy_without_torch_has_the_logits_of_llama_cpp(tmp_path, name):
    target = tmp_path / "package"
    done = without_torch("convert", golden_file(tmp_path, name), target, *EXACT)
    assert done.returncode == 0, done.stderr
    arrays = golden_arrays(name)
    logits = logits_of(target, arrays["tokens"])
    assert np.abs(logits - arrays["logits"]).max() < 1e-4
    assert config_of(target)["spiketrain"]["fidelity"] == "exact"


@pytest.mark.parametrize("name", NAMES)
def test_a_package_has_the_token_ids_of_llama_cpp(convert, name):
    package = convert(name, *EXACT)
    tokenizer = load_tokenizer(package)
    pairs = golden_json(name, "tokens")["pairs"]
    assert pairs
    settings = json.loads((package / "tokenizer_config.json").read_text())
    added = int(settings["add_bos_token"])  # an encoded text has no BOS of its own
    for pair in pairs:
        assert tokenizer.encode(pair["text"]) == pair["special"][added:], pair["text"]


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_of_a_copy_sees_the_whole_context(convert, name):
    config = config_of(convert(name, *EXACT))
    source = golden_json(name, "config")
    assert config["window_keys"] == source["max_position_embeddings"]
    assert config["attn_layers"] == list(range(source["num_hidden_layers"]))
    assert config["window_cache"] == "float32"
    assert not config["spikes"]


def test_a_shorter_window_changes_only_tokens_that_lie_beyond_it(convert):
    tokens = golden_arrays(SMALL)["tokens"]
    expected = golden_arrays(SMALL)["logits"]
    logits = logits_of(convert(SMALL, *EXACT, "--window-keys", "20"), tokens)
    difference = np.abs(logits - expected).max(1)
    assert difference[:20].max() < 1e-4
    assert difference[20:].min() > 1e-3


def test_bfloat16_weights_are_near_and_say_that_they_are_rounded(convert):
    arrays = golden_arrays(SMALL)
    package = convert(SMALL, *RECIPE, "--no-spikes", "--weights", "bfloat16")
    difference = np.abs(logits_of(package, arrays["tokens"]) - arrays["logits"]).max()
    assert 1e-4 < difference < 0.05 * np.abs(arrays["logits"]).max()
    assert config_of(package)["spiketrain"]["fidelity"] == "weight-only"


def test_spikes_and_int8_weights_are_made_without_torch(tmp_path):
    target = tmp_path / "package"
    done = without_torch("convert", golden_file(tmp_path, SMALL), target, *RECIPE)
    assert done.returncode == 0, done.stderr
    config = config_of(target)
    assert config["spikes"]
    assert config["window_cache"] == "bfloat16"
    assert set(config["spiketrain"]["weights"].values()) == {"int8"}
    assert config["spiketrain"]["fidelity"] == "integer"
    arrays = golden_arrays(SMALL)
    difference = logits_of(target, arrays["tokens"]) - arrays["logits"]
    assert np.sqrt((difference**2).mean() / (arrays["logits"] ** 2).mean()) < 0.1


def test_spike_counts_have_the_k_and_the_dead_zone_that_are_asked_for(convert):
    options = ("--k", "3", "--dead-zone", "1.5", "--max-dial", "4")
    package = convert(SMALL, *RECIPE, *options)
    config = config_of(package)
    assert config["spiketrain"]["fidelity"] == "approximate"
    assert config["spiketrain"]["max_dial"] == 4
    model = load_model(package)
    counts = model.record(model.new_state(), golden_arrays(SMALL)["tokens"])
    values = np.concatenate([place.ravel() for place in counts.values()])
    assert values.any()
    assert 1 not in np.abs(values)  # 1 is below the dead zone


def weight_bytes(spec):
    return sum(
        np.dtype(dtype).itemsize * math.prod(size) for dtype, size in spec.tensors().values()
    )


@pytest.mark.parametrize("lacking", [1, 100_000_000])
def test_a_package_that_does_not_fit_the_memory_is_not_written(convert, monkeypatch, lacking):
    spec = gguf_spec(golden_json(SMALL, "config"), weights="float32")
    memory = max(0, weight_bytes(spec) + spec.state_nbytes - lacking)
    monkeypatch.setattr("spiketrain.commands.convert.gguf.machine_memory", lambda: memory)
    errors = convert(SMALL, *EXACT)
    assert ("--window-keys must be at most" in errors) == (lacking == 1)
    assert ("the weights" in errors) == (lacking > 1)


def test_the_window_that_is_named_is_the_widest_that_fits():
    settings = golden_json(SMALL, "config") | {"max_position_embeddings": 1 << 20}
    spec = gguf_spec(settings, weights="float32")
    memory = 64 << 20
    with pytest.raises(SpiketrainError, match="--window-keys must be at most") as caught:
        check_state_memory(spec, memory)
    most = int(str(caught.value).partition("at most ")[2].split()[0])
    check_state_memory(gguf_spec(settings, weights="float32", window_keys=most), memory)
    beyond = gguf_spec(settings, weights="float32", window_keys=most + 1)
    with pytest.raises(SpiketrainError, match=f"at most {most} "):
        check_state_memory(beyond, memory)


def test_a_dry_run_writes_nothing(tmp_path, monkeypatch, capsys):
    path, target = golden_file(tmp_path, SMALL), tmp_path / "package"
    assert call(monkeypatch, "convert", path, target, *EXACT, "--dry-run") == 0
    assert "parameters" in capsys.readouterr().out
    assert not target.exists()


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ((), "--recipe must be transformer-to-spiking for a GGUF file"),
        (("--recipe", "gru-to-egru"), "--recipe must be transformer-to-spiking for a GGUF file"),
        ((*RECIPE, "--weights", "int4"), "must be one of float32, bfloat16, int8 for GGUF files"),
        ((*RECIPE, "--k", "17"), r"must be in [0.001, 16]"),
        ((*RECIPE, "--no-spikes", "--k", "3"), "excludes --no-spikes"),
        ((*RECIPE, "--no-spikes", "--max-dial", "3"), "excludes --no-spikes"),
        ((*RECIPE, "--calib", "text.txt"), "is not for GGUF files"),
        ((*EXACT, "--window-keys", "100000"), "--window-keys must be at most the"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(convert, options, rule):
    errors = " ".join(convert(SMALL, *options).replace("│", " ").split())
    assert rule in errors


@pytest.mark.parametrize("name", ["scale_infinite", "layers", "merge_unknown"])
def test_a_broken_file_is_one_error_and_leaves_nothing(tmp_path, convert, name):
    errors = convert(name, *EXACT)
    assert f"{name}.gguf" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.gguf"]


def test_flags_of_gguf_files_are_not_for_directories(tmp_path, monkeypatch, capsys):
    source = Path(tmp_path)
    (source / "config.json").write_text(json.dumps({"model_type": "gla_swa"}))
    assert call(monkeypatch, "convert", source, tmp_path / "p", "--no-spikes") == 2
    assert "needs a GGUF file" in capsys.readouterr().err
