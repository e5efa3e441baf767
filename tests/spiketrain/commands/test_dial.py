"""--dial of the commands: more silent inputs, other figures, and both said."""

import numpy as np
import pytest
import tiny
from command_in_process import call
from tiny_spikegpt import tiny_spikegpt_package

from spiketrain import runtime
from spiketrain.evaluation.measure import measure_perplexity
from spiketrain.evaluation.protocols import settle
from spiketrain.evaluation.sources import open_source
from spiketrain.runtime.errors import DataError


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("dial") / "package"
    return tiny_spikegpt_package(path, neuron_position="projections", max_dial=2.0)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("dial") / "text.txt"
    path.write_text("The owl said to the fox: the moon is in the well. " * 4)
    return path


def test_perplexity_at_a_dial_says_so_and_is_that_of_its_states(package, text, read):
    plain, turned = (read("eval", "ppl", package, "--data", text, "--dial", d) for d in (1, 1.4))
    assert (plain["dial"], turned["dial"]) == (1.0, 1.4)
    assert turned["protocol_text"] == plain["protocol_text"] + ", dial 1.4"
    assert turned["firing_rate"] < plain["firing_rate"]
    model = runtime.load_model(package)
    ids = [model.eos_token_ids[0], *text.read_bytes()]
    logits = model.forward(model.new_state(1.4), ids[:-1]).astype(np.float64)
    shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    nats = -shares[np.arange(len(ids) - 1), ids[1:]].sum()
    assert turned["nll_nats"] == pytest.approx(nats)
    batched = ("--protocol", "half-window", "--ctx", 20, "--dial", 1.4)
    one, three = (read("eval", "ppl", package, "--data", text, *batched, "--batch", n)
                  for n in (1, 3))  # fmt: skip
    assert one["nll_nats"] == three["nll_nats"]


def test_a_package_is_compared_with_itself_at_another_dial(package, text, read):
    command = ("eval", "ppl", package, "--data", text, "--baseline", package)
    same = read(*command, "--dial", 1.4, "--baseline-dial", 1.4)
    assert same["difference_bits_per_byte"] == 0.0
    found = read(*command, "--dial", 1.4)
    assert found["difference_bits_per_byte"] != 0.0
    assert found["protocol_text"].endswith(", dial 1.4 against 1")
    assert (found["dial"], found["baseline_dial"]) == (1.4, 1.0)


def test_an_interrupted_evaluation_goes_on_at_its_own_dial_alone(package, text, tmp_path):
    lines, settings = tmp_path / "lines", settle("carry")
    at = {dial: runtime.load_model(package, dial=dial) for dial in (1.0, 1.5)}

    def measured(dial, resume):
        model, source = at[dial], open_source(str(text))
        return measure_perplexity(
            model, model.tokenizer, source, settings, None, 1, lines, resume
        ).nll_nats

    whole = measured(1.5, False)
    assert measured(1.5, True) == whole
    with pytest.raises(DataError, match="protocol must be"):
        measured(1.0, True)


@pytest.mark.slow
def test_activity_and_bench_run_at_a_dial(package, text, read, monkeypatch, capsys):
    command = ("eval", "activity", package, "--data", text, "--limit", 60)
    plain, turned = read(*command), read(*command, "--dial", 1.5)
    assert (plain["dial"], turned["dial"]) == (1.0, 1.5)
    assert turned["total"]["firing_rate"] < plain["total"]["firing_rate"]
    assert turned["total"]["weight_bytes_touched"] < plain["total"]["weight_bytes_touched"]
    name = "blocks.1.ffn.value"
    assert turned["units"][name]["firing_rate"] < plain["units"][name]["firing_rate"]
    assert call(monkeypatch, *command, "--dial", "1.5") == 0
    assert "dial 1.5" in " ".join(capsys.readouterr().out.split())
    sizes = ("--contexts", "0", "--prefills", "8", "--batches", "2", "--tokens", "4",
             "--rounds", "1", "--threads", "1")  # fmt: skip
    slow, fast = (read("bench", package, *sizes, "--dial", d) for d in (1, 2))
    assert fast["dial"] == 2.0
    touched = [found["by_context"][0]["weight_bytes_per_token"] for found in (slow, fast)]
    assert touched[1] < touched[0]


def test_generate_takes_a_dial(package, read):
    command = ("generate", "The owl", "--model", package, "--temperature", 0, "--ignore-eos")
    model = runtime.load_model(package)
    for dial in (1.0, 1.3):
        state = model.new_state(dial)
        logits, written = model.forward(state, list(b"The owl"), last_only=True), []
        for _ in range(6):
            written.append(int(logits.argmax()))
            logits = model.step([state], written[-1:])[0]
        found = read(*command, "--max-new-tokens", 6, "--dial", dial)
        assert found["token_ids"] == written


@pytest.mark.parametrize(
    "command",
    [("eval", "ppl"), ("eval", "activity"), ("bench",), ("generate", "a", "--model")],
)
def test_a_dial_out_of_range_is_one_line(package, text, tmp_path, monkeypatch, capsys, command):
    data = ("--data", text) if command[0] == "eval" else ()
    egru = tiny.tiny_egru_package(tmp_path / "egru")
    for model, rule in ((package, "dial must be from 1 to 2"), (egru, "dial must be 1")):
        for dial in ("3", "nan"):
            assert call(monkeypatch, *command, model, *data, "--dial", dial) == 1
            errors = capsys.readouterr().err
            assert rule in " ".join(errors.split())
            assert "Traceback" not in errors


def test_a_baselines_dial_needs_a_baseline(package, text, monkeypatch):
    assert call(monkeypatch, "eval", "ppl", package, "--data", text, "--baseline-dial", "2") == 2
