"""`spiketrain eval ppl`, interrupted and gone on with."""

import json

import pytest
import tiny
from command_in_process import call
from interrupted_model import WIKITEXT, Interrupted, write_documents

from spiketrain.commands.eval import compare as eval_compare
from spiketrain.commands.eval import models as eval_models

TIMED = ("tokens_per_s", "peak_memory_bytes")


def run(monkeypatch, *arguments):
    """Exit code of the command line."""
    return call(monkeypatch, "eval", "ppl", *arguments)


def untimed(out):
    return {key: value for key, value in json.loads(out).items() if key not in TIMED}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    return tiny.tiny_egru_package(folder / "a"), tiny.tiny_egru_package(folder / "b", seed=1)


@pytest.fixture
def text(tmp_path):
    return write_documents(tmp_path / "text.txt")


@pytest.fixture
def interrupt(monkeypatch):
    """Models opened while the returned context lasts give up at their fifth call."""
    opened = eval_models.open_package

    def limited(*arguments):
        model, tokenizer = opened(*arguments)
        return Interrupted(model, 5), tokenizer

    with monkeypatch.context() as patch:
        patch.setattr(eval_models, "open_package", limited)
        yield patch


@pytest.mark.parametrize("protocol", ["carry", "rolling"])
@pytest.mark.parametrize("two", [False, True])
def test_an_interrupt_says_how_to_go_on(
    packages, text, tmp_path, interrupt, monkeypatch, capsys, two, protocol
):
    lines = tmp_path / "lines.jsonl"
    arguments = [packages[0], "--data", text, "--json", "--protocol", protocol]
    arguments += ["--baseline", packages[1]] if two else []
    assert run(monkeypatch, *arguments, "--documents", lines) == 130
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"interrupted: go on with --documents {lines} --resume\n")
    interrupt.undo()
    assert run(monkeypatch, *arguments, "--documents", lines, "--resume") == 0
    again = untimed(capsys.readouterr().out)
    assert run(monkeypatch, *arguments) == 0
    assert again == untimed(capsys.readouterr().out)


@pytest.mark.usefixtures("interrupt")
def test_an_interrupt_without_lines_is_a_code_alone(packages, text, monkeypatch, capsys):
    arguments = (packages[0], "--data", text, "--baseline", packages[1])
    assert run(monkeypatch, *arguments) == 130
    assert capsys.readouterr() == ("", "")


def test_an_interrupted_parity_goes_on(tmp_path, text, interrupt, monkeypatch, capsys):
    pytest.importorskip("torch")
    from spiketrain.lm.families.egru import Config, Model

    config = Config(vocab_size=257, embedding_size=12, hidden_sizes=[20, 12])
    Model(config).eval().save_pretrained(tmp_path / "hf")
    tokenizer = tiny.tiny_egru_package(tmp_path / "t") / "tokenizer.json"
    text.write_text(WIKITEXT.read_text("utf-8")[:2500], encoding="utf-8")
    arguments = (tmp_path / "hf", "--backend", "torch", "--parity", "--data", text, "--json",
                 "--tokenizer", tokenizer, "--prefix-token", "256")  # fmt: skip
    lines = tmp_path / "lines.jsonl"
    interrupt.setattr(eval_compare, "open_package", eval_models.open_package)
    assert run(monkeypatch, *arguments, "--documents", lines) == 130
    assert "interrupted: go on with" in capsys.readouterr().err
    kept = json.loads(lines.with_name("lines.jsonl.progress").read_text())["content"]
    assert (kept["spans"], len(kept["states"])) == (1, 2)  # of torch and of the runtime
    interrupt.undo()
    assert run(monkeypatch, *arguments, "--documents", lines, "--resume") == 0
    again = json.loads(capsys.readouterr().out)
    assert run(monkeypatch, *arguments) == 0
    assert again == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("two", [False, True])
def test_a_damaged_progress_file_is_one_line(packages, text, tmp_path, monkeypatch, capsys, two):
    (tmp_path / "lines.progress").write_text("{")
    arguments = ["--baseline", packages[1]] if two else []
    lines = ("--documents", tmp_path / "lines", "--resume")
    assert run(monkeypatch, packages[0], "--data", text, *lines, *arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "lines.progress: must be a progress file" in err
    assert err.count("\n") == 1
