import itertools
import json
import lzma
import math

import numpy as np
import pytest
import tiny

import runtime
from runtime.scoring import token_nats
from spiketrain.cli import main

TEXT = "A fox sat.\n\nIt ran.\n<|endoftext|>\nAn owl flew over d\u00e9j\u00e0.\n<|endoftext|>\n"


def run(monkeypatch, *arguments):
    """Exit code of the command line."""
    monkeypatch.setattr("sys.argv", ["spiketrain", "eval", "ppl", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code or 0


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny.tiny_egru_package(tmp_path_factory.mktemp("eval") / "package")


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "text.txt"


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
    for part in ("carry: state carried", "bits per byte", "firing rate", "sha256:"):
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
    "arguments", [[], ["--data", "x", "--protocol", "other"], ["--data", "x", "--limit", "0"]]
)
def test_bad_usage_is_exit_code_2(package, monkeypatch, arguments):
    assert run(monkeypatch, package, *arguments) == 2
