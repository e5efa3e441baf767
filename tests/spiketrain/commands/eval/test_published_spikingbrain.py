"""A published SpikingBrain directory, converted, through every evaluation of the command line."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from command_in_process import call  # noqa: E402

from spiketrain.lm.checkpoint import UpstreamChoices, read_checkpoint  # noqa: E402

DATA = Path(__file__).parents[3] / "data" / "spikingbrain"
WORDS = [f"w{number}" for number in range(197)]
SOURCES = {
    "fp": ("fp", (), {}),
    "w8": ("w8_g32", (), {}),
    "spiked": ("w8_g32", ("--down-proj", "spiked"), {"down_proj": "spiked"}),
    "int4": ("w8_g32", ("--down-proj", "spiked", "--weights", "int4"), {"down_proj": "spiked"}),
}


@pytest.fixture
def text(tmp_path):
    """Two documents of words, a tokenizer for them, and their ids behind an end of line."""
    numbers = np.random.default_rng(4).integers(0, len(WORDS), 90)
    (tmp_path / "words.txt").write_text("\n".join(["<eos>", "<unk>", *WORDS]))
    lines = [" ".join(WORDS[i] for i in part) for part in np.split(numbers, [50])]
    (tmp_path / "text.txt").write_text(f"{lines[0]}\n{lines[1]}")
    ids = [0, *(numbers[:50] + 2), 0, *(numbers[50:] + 2)]
    options = ("--data", tmp_path / "text.txt", "--tokenizer", tmp_path / "words.txt")
    return options, [int(i) for i in ids]


@pytest.fixture(params=SOURCES)
def converted(request, tmp_path, monkeypatch):
    name, options, meaning = SOURCES[request.param]
    package = tmp_path / "package"
    assert call(monkeypatch, "convert", DATA / name, package, *options) == 0
    with torch.no_grad():
        model = read_checkpoint(DATA / name, UpstreamChoices(**meaning)).model.eval()
    return request.param, package, model


def test_perplexity_is_that_of_the_torch_model(converted, text, read):
    name, package, model = converted
    options, ids = text
    found = read("eval", "ppl", package, *options, "--prefix-token", "0")
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]])).logits[0].double()
    nats = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum")
    tolerance = {"fp": 1e-5, "int4": 0.2}.get(name, 2e-3)
    assert found["tokens"] == len(ids) - 1
    assert found["nll_nats"] == pytest.approx(float(nats), rel=tolerance)


def test_windows_side_by_side_have_the_same_bits(converted, text, read):
    _, package, _ = converted
    options, _ = text
    for protocol in (["half-window", "--ctx", 24], ["stride", "--ctx", 24, "--stride", 12]):
        command = ("eval", "ppl", package, *options, "--protocol", *protocol)
        one, several = read(*command), read(*command, "--batch", 3, "--threads", 2)
        assert one["nll_nats"] == several["nll_nats"]
        assert one["tokens"] > 20


def test_parity_of_the_backends(converted, text, read):
    name, package, model = converted
    options, ids = text
    if name in ("spiked", "int4"):
        model.save_pretrained(package.parent / "hf")
        checkpoint = package.parent / "hf"
    else:
        checkpoint = DATA / SOURCES[name][0]
    command = ("eval", "ppl", package, *options, "--prefix-token", "0")
    found = read(*command, "--parity", "--checkpoint", checkpoint)
    assert found["tokens"] == len(ids) - 1
    bound = {"fp": 1e-3, "int4": 4}.get(name, 0.3)  # w8: a count at a rounding goes either way
    assert found["largest_nll_difference"] < bound


def test_a_dial_is_the_same_in_both_backends(tmp_path, monkeypatch, text, read):
    options, _ = text
    source, package = DATA / "w8_g32", tmp_path / "package"
    assert call(monkeypatch, "convert", source, package, "--max-dial", "2") == 0
    command = ("eval", "ppl", package, *options, "--prefix-token", "0")
    plain = read(*command)["nll_nats"]
    at = ("--dial", "1.6", "--parity", "--checkpoint", source)
    found = read(*command, *at)
    assert found["largest_nll_difference"] < 0.3  # a count at its threshold goes either way
    turned = read(*command, "--dial", "1.6")["nll_nats"]
    torch_alone = read("eval", "ppl", source, *options, "--prefix-token", "0", "--backend",
                       "torch", "--dial", "1.6")  # fmt: skip
    assert torch_alone["nll_nats"] == pytest.approx(turned, rel=2e-3)
    assert abs(turned - plain) > 10 * abs(torch_alone["nll_nats"] - turned)


@pytest.mark.slow
def test_activity_counts_spikes_and_draws_them(converted, text, tmp_path, read):
    pytest.importorskip("matplotlib")
    name, package, _ = converted
    options, _ = text
    page, pictures = tmp_path / "page.html", tmp_path / "png"
    drawn = ("--html", page, "--png", pictures)
    found = read("eval", "activity", package, *options, "--limit", 80, *drawn)
    assert found["tokens"] == 80
    names = {path.stem for path in pictures.iterdir()}
    if name == "fp":
        assert found["units"] == {}
        assert found["total"]["firing_rate"] is None
        assert names == {"positions"}
        return
    assert len(found["units"]) == (12 if name == "w8" else 16)
    assert 0.3 < found["total"]["firing_rate"] < 1
    assert found["total"]["synops_effective_acs"] > 0
    assert names == {"raster", "firing-rates", "counts", "positions"}
    assert page.read_text("utf-8").count("data:image/png;base64,") == 4


@pytest.mark.slow
def test_bench_has_every_row(converted, read):
    _, package, _ = converted
    sizes = ("--contexts", "0,40", "--prefills", "8", "--batches", "1,2", "--tokens", "2")
    found = read("bench", package, *sizes, "--rounds", "1", "--threads", "2")
    assert len({row["state_bytes"] for row in found["by_context"]}) == 1
    assert len(found["by_threads"]) == 2
    assert all(row["tokens_per_s"] > 0 for row in (*found["by_batch"], *found["prefill"]))
