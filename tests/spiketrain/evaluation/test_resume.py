import json
import os

import pytest
import tiny
from interrupted_model import PROTOCOLS, WIKITEXT, Interrupted, write_documents
from small_files import small_files

from spiketrain import runtime
from spiketrain.evaluation import perplexity
from spiketrain.evaluation import run as running
from spiketrain.evaluation.measure import measure_perplexity
from spiketrain.evaluation.progress_file import ProgressFile
from spiketrain.evaluation.protocols import settle
from spiketrain.evaluation.sources import open_source
from spiketrain.runtime.errors import DataError, WriteError

TIMED = ("tokens_per_s", "peak_memory_bytes")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return runtime.load_model(tiny.tiny_egru_package(tmp_path_factory.mktemp("m") / "package"))


@pytest.fixture
def text(tmp_path):
    return write_documents(tmp_path / "text.txt")


def run(model, text, protocol, lines=None, resume=False, limit=None, batch=1):
    settings = settle(protocol, **PROTOCOLS[protocol])
    found = measure_perplexity(
        model, model.tokenizer, open_source(str(text)), settings, limit, batch, lines, resume
    )
    return {key: value for key, value in found.to_dict().items() if key not in TIMED}


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize("calls", [0, 1, 3])
@pytest.mark.parametrize("limit", [None, 1500])
def test_an_interrupted_run_goes_on_to_identical_totals(
    model, text, tmp_path, monkeypatch, protocol, calls, limit
):
    monkeypatch.setattr(running, "KEEP_EVERY_S", 0.0)
    whole = run(model, text, protocol, tmp_path / "whole.jsonl", limit=limit)
    lines = tmp_path / "lines.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(model, calls), text, protocol, lines, limit=limit)
    assert run(model, text, protocol, lines, resume=True, limit=limit) == whole
    assert lines.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_finished_run_resumes_to_its_own_totals(model, text, tmp_path):
    for limit in (None, 700):
        lines = tmp_path / f"lines-{limit}"
        whole = run(model, text, "rolling", lines, limit=limit)
        again = run(Interrupted(model, 0), text, "rolling", lines, resume=True, limit=limit)
        assert again == whole


def test_a_run_may_go_on_in_another_batch(model, text, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "KEEP_EVERY_S", 0.0)
    whole = run(model, text, "rolling")
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(model, 7), text, "rolling", tmp_path / "lines")
    assert run(model, text, "rolling", tmp_path / "lines", resume=True, batch=4) == whole


def test_lines_add_up_to_the_totals(model, text, tmp_path):
    whole = run(model, text, "carry", tmp_path / "lines")
    records = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert sum(r["tokens"] for r in records) == whole["tokens"]
    assert sum(r["bytes"] for r in records) == whole["bytes"]
    assert perplexity.figures(records)["nll_nats"] == whole["nll_nats"]
    assert [r["document"] for r in records] == list(range(len(records)))
    assert all(sum(t for _, t in r["blocks"]) == r["tokens"] for r in records)


def test_a_line_cut_short_by_a_crash_does_no_harm(model, text, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "KEEP_EVERY_S", 0.0)
    whole = run(model, text, "carry")
    lines = tmp_path / "lines"
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(model, 4), text, "carry", lines)
    with lines.open("ab") as file:
        file.write(b'{"document": 7, "nll')
    assert run(model, text, "carry", lines, resume=True) == whole


def test_another_text_protocol_or_limit_is_refused(model, text, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "KEEP_EVERY_S", 0.0)
    lines = tmp_path / "lines"
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(model, 4), text, "carry", lines)
    with pytest.raises(DataError, match="protocol must be"):
        run(model, text, "rolling", lines, resume=True)
    with pytest.raises(DataError, match="limit must be 5"):
        run(model, text, "carry", lines, resume=True, limit=5)
    text.write_text("x" + text.read_text("utf-8"), encoding="utf-8")
    with pytest.raises(DataError, match="must be the text of the interrupted evaluation"):
        run(model, text, "carry", lines, resume=True)
    text.write_text("short")
    with pytest.raises(DataError, match="must be the text of the interrupted evaluation"):
        run(model, text, "carry", lines, resume=True)


def test_lines_of_another_run_are_not_overwritten(model, text, tmp_path):
    (tmp_path / "lines").write_text("precious\n")
    with pytest.raises(DataError, match="must not exist, or be of an interrupted evaluation"):
        run(model, text, "carry", tmp_path / "lines")
    assert (tmp_path / "lines").read_text() == "precious\n"


def test_the_progress_of_a_run_without_lines_yet_is_not_overwritten(model, text, tmp_path):
    text.write_text(WIKITEXT.read_text("utf-8")[:2500], encoding="utf-8")  # one document
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(model, 4), text, "carry", tmp_path / "lines")
    assert (tmp_path / "lines").read_bytes() == b""
    with pytest.raises(DataError, match=r"lines\.progress: must not exist"):
        run(model, text, "carry", tmp_path / "lines")


def test_a_run_goes_on_that_was_interrupted_before_progress_was_due(model, text, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(model, 3), text, "rolling", tmp_path / "lines")
    assert (tmp_path / "lines").read_bytes()
    again = run(model, text, "rolling", tmp_path / "lines", resume=True)
    assert again == run(model, text, "rolling")


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 9999, '{"version": 1, "identity": {}}'])
def test_a_damaged_progress_file_is_named(model, text, tmp_path, content):
    (tmp_path / "lines.progress").write_text(content)
    with pytest.raises(DataError, match=r"lines\.progress"):
        run(model, text, "carry", tmp_path / "lines", resume=True)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("lines.progress", b'"tokens": ', b'"tokens": 1'),
        ("lines", b'"nll_nats": ', b'"nll_nats": 9'),
    ],
)
def test_what_was_changed_since_is_named(model, text, tmp_path, name, before, after):
    lines = tmp_path / "lines"
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(model, 3), text, "rolling", lines)
    content = (tmp_path / name).read_bytes()
    assert before in content
    (tmp_path / name).write_bytes(content.replace(before, after, 1))
    with pytest.raises(DataError, match=r"lines.*: must (have the content|begin with the)"):
        run(model, text, "rolling", lines, resume=True)


def test_lines_that_are_gone_are_named(model, text, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "KEEP_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(model, 3), text, "rolling", tmp_path / "lines")
    (tmp_path / "lines").unlink()
    with pytest.raises(DataError, match="lines: must begin with the"):
        run(model, text, "rolling", tmp_path / "lines", resume=True)


@pytest.mark.parametrize("num_bytes", [0, 100, 1000])
def test_lines_that_do_not_fit_the_disk_leave_what_can_be_gone_on_with(tmp_path, num_bytes):
    file = ProgressFile(tmp_path / "lines", {"model": "a"}, resume=False)
    file.write({"first": 1})
    file.keep({"spans": 1})
    kept = (tmp_path / "lines.progress").read_bytes()

    def go_on():
        for _ in range(10):
            file.write({"text": "x" * 150})
            file.keep({"spans": 2, "states": "x" * 1000})

    with small_files(num_bytes), pytest.raises(WriteError, match="must be writable, got File too"):
        go_on()
    file.close()
    assert all(line.endswith(b"\n") for line in (tmp_path / "lines").read_bytes().splitlines(True))
    assert (tmp_path / "lines.progress").read_bytes() == kept
    assert sorted(os.listdir(tmp_path)) == ["lines", "lines.progress"]
    again = ProgressFile(tmp_path / "lines", {"model": "a"}, resume=True)
    assert again.records() == [{"first": 1}]
    again.close()
