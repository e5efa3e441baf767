import json
from pathlib import Path

import pytest
import tiny

import runtime
from runtime.errors import DataError
from spiketrain.evaluation import measure, perplexity
from spiketrain.evaluation.protocols import settle
from spiketrain.evaluation.sources import open_source

TEXT = Path(__file__).parents[2] / "data" / "wikitext2" / "test.txt"
OPTIONS = {
    "carry": {"prefix": 256, "warmup": 3},
    "egru-published": {},
    "rolling": {"prefix": 256, "ctx": 60},
    "stride": {"ctx": 120, "stride": 90},
    "half-window": {"ctx": 200},
}
TIMED = ("tokens_per_s", "peak_memory_bytes")


class Interrupted:
    """A model that gives up at its nth call."""

    def __init__(self, model, calls):
        self._model, self._calls = model, calls

    def __getattr__(self, name):
        return getattr(self._model, name)

    def forward(self, *arguments, **options):
        self._calls -= 1
        if self._calls < 0:
            raise KeyboardInterrupt
        return self._model.forward(*arguments, **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return runtime.load_model(tiny.tiny_egru_package(tmp_path_factory.mktemp("m") / "package"))


@pytest.fixture
def text(tmp_path):
    parts = TEXT.read_text("utf-8")[:2500].split(" \n \n")
    path = tmp_path / "text.txt"
    path.write_text("\n<|endoftext|>\n".join([*parts, "", "last"]), encoding="utf-8")
    return path


def run(model, text, protocol, lines=None, resume=False, limit=None, batch=1):
    settings = settle(protocol, **OPTIONS[protocol])
    found = measure.measure_perplexity(
        model, model.tokenizer, open_source(str(text)), settings, limit, batch, lines, resume
    )
    return {key: value for key, value in found.to_dict().items() if key not in TIMED}


@pytest.mark.parametrize("protocol", list(OPTIONS))
@pytest.mark.parametrize("calls", [0, 1, 3])
@pytest.mark.parametrize("limit", [None, 1500])
def test_an_interrupted_run_goes_on_to_identical_totals(
    model, text, tmp_path, monkeypatch, protocol, calls, limit
):
    monkeypatch.setattr(measure, "KEEP_EVERY_S", 0.0)
    whole = run(model, text, protocol, tmp_path / "whole.jsonl", limit=limit)
    lines = tmp_path / "lines.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(model, calls), text, protocol, lines, limit=limit)
    assert run(model, text, protocol, lines, resume=True, limit=limit) == whole
    assert lines.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_finished_run_resumes_to_its_own_totals(model, text, tmp_path):
    lines = tmp_path / "lines.jsonl"
    for limit in (None, 700):
        lines.unlink(missing_ok=True)
        whole = run(model, text, "rolling", lines, limit=limit)
        again = run(Interrupted(model, 0), text, "rolling", lines, resume=True, limit=limit)
        assert again == whole


def test_a_run_may_go_on_in_another_batch(model, text, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "KEEP_EVERY_S", 0.0)
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
    monkeypatch.setattr(measure, "KEEP_EVERY_S", 0.0)
    whole = run(model, text, "carry")
    lines = tmp_path / "lines"
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(model, 4), text, "carry", lines)
    with lines.open("ab") as file:
        file.write(b'{"document": 7, "nll')
    assert run(model, text, "carry", lines, resume=True) == whole


def test_another_text_protocol_or_limit_is_refused(model, text, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "KEEP_EVERY_S", 0.0)
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
    with pytest.raises(DataError, match="must not exist, or hold an interrupted evaluation"):
        run(model, text, "carry", tmp_path / "lines")
    assert (tmp_path / "lines").read_text() == "precious\n"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2, "identity": {}}'])
def test_a_damaged_progress_file_is_named(model, text, tmp_path, content):
    (tmp_path / "lines.progress").write_text(content)
    with pytest.raises(DataError, match=r"lines\.progress"):
        run(model, text, "carry", tmp_path / "lines", resume=True)
