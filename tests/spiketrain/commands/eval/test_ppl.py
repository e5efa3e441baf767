import itertools
import json
import lzma
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
from command_in_process import call
from eval_text import TEXT

from spiketrain import runtime
from spiketrain.runtime.scoring import token_nats

DATA = Path(__file__).parents[3] / "data"


def run(monkeypatch, *arguments):
    """Exit code of the command line."""
    return call(monkeypatch, "eval", "ppl", *arguments)


def by_hand(package):
    """Nats of TEXT, one token at a time through `step`."""
    model = runtime.load_model(package)
    end = model.eos_token_ids[0]
    first, second, _ = TEXT.split("\n<|endoftext|>\n")
    encode = model.tokenizer.encode
    ids = [end, *encode(first), end, *encode(second), end]
    state, total = model.new_state(), 0.0
    for token, target in itertools.pairwise(ids):
        logits = model.step([state], [token])
        total += float(token_nats(logits, np.array([target]))[0])
    return total, len(ids) - 1


def test_json_holds_every_figure(package, text, monkeypatch, capsys):
    assert run(monkeypatch, package, "--data", text, "--json") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    nats, tokens = by_hand(package)
    assert err == ""
    assert found["nll_nats"] == pytest.approx(nats, rel=1e-12)
    assert found["tokens"] == tokens
    assert found["words"] == len(TEXT.split())
    assert found["bytes"] == len(TEXT.encode())
    assert found["token_perplexity"] == pytest.approx(math.exp(nats / tokens))
    assert found["word_perplexity"] == pytest.approx(math.exp(nats / found["words"]))
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / found["bytes"])
    assert found["protocol"] == "carry"
    assert found["fingerprint"] == runtime.load_model(package).fingerprint
    assert found["tokens_per_s"] > 0
    assert 0 < found["firing_rate"] < 1
    assert len(found["firing_rates"]) == 3


def test_neither_threads_nor_packing_change_a_bit(package, text, monkeypatch, capsys):
    packed = text.with_suffix(".txt.xz")
    packed.write_bytes(lzma.compress(TEXT.encode()))
    results = []
    for arguments in ((text,), (text, "--threads", 2), (packed,)):
        assert run(monkeypatch, package, "--json", "--data", *arguments) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert len({found["nll_nats"] for found in results}) == 1
    assert len({found["data_hash"] for found in results}) == 1


def test_the_table_names_protocol_and_hashes(package, text, monkeypatch, capsys):
    assert run(monkeypatch, package, "--data", text, "--limit", 10) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for part in ("carry: state carried", "prefix token 256", "bits per byte", "sha256:"):
        assert part in out


def test_a_package_without_tokenizer_asks_for_one(tmp_path, package, monkeypatch, capsys):
    text = tmp_path / "plain.txt"
    text.write_text("An owl flew.")
    bare = tiny.tiny_egru_package(tmp_path / "bare", vocab=257, with_tokenizer=False)
    assert run(monkeypatch, bare, "--data", text) == 1
    assert "--tokenizer" in capsys.readouterr().err
    tokenizer = package / "tokenizer.json"
    arguments = (bare, "--tokenizer", tokenizer, "--limit", 5, "--json", "--data", text)
    assert run(monkeypatch, *arguments) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "must be readable"), (b"", "is empty"), (b"\xff\xfe", "must be UTF-8")],
)
def test_a_bad_text_is_one_line_and_exit_code_1(
    tmp_path, package, monkeypatch, capsys, content, message
):
    if content is not None:
        (tmp_path / "bad.txt").write_bytes(content)
    assert run(monkeypatch, package, "--data", tmp_path / "bad.txt") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--data", __file__, "--protocol", "other"],
        ["--data", __file__, "--limit", "0"],
        ["--data", __file__, "--resume"],
        ["--data", __file__, "--ctx", "7"],
        ["--data", __file__, "--prefix-token", "257"],
        ["--data", __file__, "--protocol", "stride", "--ctx", "8", "--stride", "9"],
    ],
)
def test_bad_usage_is_exit_code_2(package, monkeypatch, arguments):
    assert run(monkeypatch, package, *arguments) == 2


def test_wikitext2_without_tokenizer_is_read_by_words(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPIKETRAIN_DATA", str(DATA))
    names = {split: DATA / "wikitext2" / f"{split}.txt" for split in ("train", "valid", "test")}
    numbered = {}
    for path in names.values():
        for line in path.read_text("utf-8").splitlines():
            for word in [*line.split(), "<eos>"]:
                numbered.setdefault(word, len(numbered))
    package = tiny.tiny_egru_package(
        tmp_path / "p", vocab=len(numbered), with_tokenizer=False, weights="float32"
    )
    assert run(monkeypatch, package, "--data", "wikitext2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    lines = names["test"].read_text("utf-8").splitlines()
    expected = sum(len(line.split()) + 1 for line in lines)
    assert found["tokens"] == found["words"] == expected
    assert found["token_perplexity"] == found["word_perplexity"]
    assert found["bytes"] == names["test"].stat().st_size
    assert found["prefix_token"] == numbered["<eos>"]
    assert found["documents"] == 3


def test_subwords_on_wikitext2_count_words_as_papers_do(package, monkeypatch, capsys):
    monkeypatch.setenv("SPIKETRAIN_DATA", str(DATA))
    assert run(monkeypatch, package, "--data", "wikitext2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    lines = (DATA / "wikitext2" / "test.txt").read_text("utf-8").splitlines()
    assert found["words"] == sum(len(line.split()) + 1 for line in lines)
    assert found["word_perplexity"] == pytest.approx(math.exp(found["nll_nats"] / found["words"]))


def test_lines_are_written_and_kept(package, text, tmp_path, monkeypatch, capsys):
    lines = tmp_path / "lines.jsonl"
    arguments = (package, "--data", text, "--json", "--protocol", "rolling", "--documents", lines)
    assert run(monkeypatch, *arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert [json.loads(line)["document"] for line in lines.read_text().splitlines()] == [0, 1]
    assert run(monkeypatch, *arguments) == 1
    assert "--resume" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--resume") == 0
    assert json.loads(capsys.readouterr().out)["nll_nats"] == first["nll_nats"]


def test_prefix_token_can_be_named_or_left_out(package, text, monkeypatch, capsys):
    found = {}
    for prefix in ("auto", "256", "none", "65"):
        assert run(monkeypatch, package, "--data", text, "--json", "--prefix-token", prefix) == 0
        found[prefix] = json.loads(capsys.readouterr().out)
    assert found["auto"]["nll_nats"] == found["256"]["nll_nats"] != found["65"]["nll_nats"]
    assert found["none"]["tokens"] == found["auto"]["tokens"] - 1
    assert found["none"]["prefix_token"] is None


def test_a_tokenizer_that_cannot_encode_is_named(tmp_path, text, monkeypatch, capsys):
    words = tmp_path / "words.txt"
    words.write_text("<eos>\nowl\n")
    bare = tiny.tiny_egru_package(tmp_path / "bare", with_tokenizer=False)
    assert run(monkeypatch, bare, "--data", text, "--tokenizer", words) == 1
    assert "document 0: tokenizer must encode it" in capsys.readouterr().err


def test_a_model_without_an_end_of_text_is_told_what_goes(tmp_path, text, monkeypatch, capsys):
    words = tmp_path / "words.txt"
    words.write_text("<unk>\n<eos>\nowl\n")
    bare = tiny.tiny_egru_package(tmp_path / "bare", with_tokenizer=False)
    arguments = (bare, "--data", text, "--tokenizer", words)
    assert run(monkeypatch, *arguments) == 1
    assert "document 0: model must name an eos_token_id" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--protocol", "rolling") == 0


def test_figures_that_no_number_can_be_are_null(package, tmp_path, monkeypatch, capsys):
    data = tmp_path / "x.jsonl"
    data.write_text('{"text": "x"}\n')  # after the warm-up, the end of the text alone: no bytes
    arguments = (package, "--data", data, "--warmup", 1, "--json")
    for more in ((), ("--baseline", package)):
        assert run(monkeypatch, *arguments, *more) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["tokens"], found["bytes"], found["bits_per_byte"]) == (1, 0, None)
    assert found["difference_bits_per_byte"] is None


def test_an_unknown_model_is_one_line(tmp_path, text, monkeypatch, capsys):
    assert run(monkeypatch, tmp_path / "absent", "--data", text) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_torch_and_runtime_agree(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    from spiketrain.lm.export import export_model
    from spiketrain.lm.families.egru import Config, Model

    config = Config(vocab_size=257, embedding_size=12, hidden_sizes=[20, 12])
    Model(config).eval().save_pretrained(tmp_path / "hf")
    tokenizer = tiny.tiny_egru_package(tmp_path / "t") / "tokenizer.json"
    export_model(Model.from_pretrained(tmp_path / "hf"), tmp_path / "package")
    text = tmp_path / "plain.txt"
    text.write_text("A fox sat, and an owl flew over it.")
    found = {}
    for model, backend in (("package", "runtime"), ("hf", "torch")):
        for protocol in ("carry", "rolling", "egru-published"):
            arguments = (tmp_path / model, "--backend", backend, "--protocol", protocol)
            code = run(
                monkeypatch, *arguments, "--data", text, "--tokenizer", tokenizer, "--json",
                "--prefix-token", "256", "--limit", "20",
            )  # fmt: skip
            assert code == 0
            found[backend, protocol] = json.loads(capsys.readouterr().out)
    for protocol in ("carry", "rolling", "egru-published"):
        ours, theirs = found["runtime", protocol], found["torch", protocol]
        assert ours["nll_nats"] == pytest.approx(theirs["nll_nats"], rel=1e-5)
        assert ours["firing_rate"] == pytest.approx(theirs["firing_rate"], abs=0.01)
        assert theirs["fingerprint"].startswith("torch-sha256:")
