import json
import math
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import tiny
from interrupted_model import PROTOCOLS, Interrupted, write_documents

from spiketrain import runtime
from spiketrain.evaluation import run as running
from spiketrain.evaluation.comparison import baseline_lines, compare_documents, compare_tokens
from spiketrain.evaluation.measure import measure_perplexity
from spiketrain.evaluation.protocols import settle
from spiketrain.evaluation.sources import open_source
from spiketrain.runtime.errors import DataError

KILLED = """
import os, signal, sys
import tiny
from interrupted_model import Interrupted
from spiketrain import runtime
from spiketrain.evaluation import run as running
from spiketrain.evaluation.comparison import compare_tokens
from spiketrain.evaluation.protocols import settle
from spiketrain.evaluation.sources import open_source

class Killed(Interrupted):
    def _count(self):
        try:
            super()._count()
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGKILL)

*packages, text, lines, calls = sys.argv[1:]
model, baseline = map(runtime.load_model, packages)
running.KEEP_EVERY_S = 0.0
baseline = Killed(baseline, int(calls))
source, settings = open_source(text), settle("carry", prefix=256)
compare_tokens(model, baseline, model.tokenizer, source, settings, lines=running.Path(lines))
"""


class OtherTokenizer:
    """The same ids under another hash, as of another tokenizer."""

    hash = "sha256:other"

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return (
        tiny.tiny_egru_package(folder / "a"),
        tiny.tiny_egru_package(folder / "b", seed=1, hidden_sizes=(16,)),
    )


@pytest.fixture(scope="module")
def models(packages):
    return tuple(map(runtime.load_model, packages))


@pytest.fixture
def text(tmp_path):
    return write_documents(tmp_path / "text.txt")


@pytest.fixture
def kept(monkeypatch):
    """Progress is kept after every span."""
    monkeypatch.setattr(running, "KEEP_EVERY_S", 0.0)


def compare(models, text, protocol, lines=None, resume=False, limit=None, batch=1):
    settings = settle(protocol, **PROTOCOLS[protocol])
    source = open_source(str(text))
    return compare_tokens(
        *models, models[0].tokenizer, source, settings, limit, batch, lines, resume
    )


def compare_twice(models, text, lines=None, resume=False):
    tokenizers = (models[0].tokenizer, OtherTokenizer(models[0].tokenizer))
    sources = (open_source(str(text)), open_source(str(text)))
    settings = settle("rolling", prefix=256, ctx=60)
    return compare_documents(
        *models, tokenizers, sources, (settings, settings), lines=lines, resume=resume
    )


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize(("which", "calls", "limit"), [(0, 0, None), (1, 3, None), (0, 4, 1500)])
@pytest.mark.usefixtures("kept")
def test_an_interrupted_comparison_goes_on_to_identical_totals(
    models, text, tmp_path, protocol, which, calls, limit
):
    whole = compare(models, text, protocol, tmp_path / "whole", limit=limit)
    lines, stopped = tmp_path / "lines", list(models)
    stopped[which] = Interrupted(models[which], calls)
    with pytest.raises(KeyboardInterrupt):
        compare(stopped, text, protocol, lines, limit=limit)
    assert compare(models, text, protocol, lines, resume=True, limit=limit) == whole
    assert whole == compare(models, text, protocol, limit=limit)
    assert lines.read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.usefixtures("kept")
def test_a_comparison_may_be_interrupted_again_and_again(models, text, tmp_path):
    lines = tmp_path / "lines"
    for times in range(20):
        try:
            found = compare((Interrupted(models[0], 4), models[1]), text, "carry", lines, times > 0)
            break
        except KeyboardInterrupt:
            pass
    assert times >= 2
    assert found == compare(models, text, "carry")


@pytest.mark.usefixtures("kept")
def test_a_comparison_may_go_on_in_another_batch(models, text, tmp_path):
    lines = tmp_path / "lines"
    with pytest.raises(KeyboardInterrupt):
        compare((models[0], Interrupted(models[1], 200)), text, "rolling", lines, batch=3)
    assert json.loads(lines.with_name("lines.progress").read_text())["content"]["spans"] >= 3
    assert compare(models, text, "rolling", lines, resume=True) == compare(models, text, "rolling")


@pytest.mark.parametrize("calls", [0, 1, 4])
def test_a_killed_comparison_goes_on_to_identical_totals(packages, models, text, tmp_path, calls):
    lines = tmp_path / "lines"
    command = [sys.executable, "-c", KILLED, *packages, text, lines, calls]
    done = subprocess.run(
        [str(part) for part in command], env={"PYTHONPATH": ":".join(sys.path)}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    settings = settle("carry", prefix=256)
    found, whole = (
        compare_tokens(*models, models[0].tokenizer, open_source(str(text)), settings, **how)
        for how in ({"lines": lines, "resume": True}, {})
    )
    assert found == whole


def test_lines_hold_what_both_models_do_in_a_document(models, text, tmp_path):
    whole = compare(models, text, "rolling", tmp_path / "lines")
    records = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    settings = settle("rolling", **PROTOCOLS["rolling"])
    for at, name in enumerate(("nll_nats", "baseline_nll_nats")):
        source, alone = open_source(str(text)), tmp_path / name
        measure_perplexity(models[at], models[0].tokenizer, source, settings, lines=alone)
        expected = [json.loads(line)["nll_nats"] for line in alone.read_text().splitlines()]
        assert [record[name] for record in records] == expected
    tokens = sum(record["tokens"] for record in records)
    kl, same = (math.fsum(r[name] for r in records) / tokens for name in ("kl_nats", "same_top_1"))
    assert kl == pytest.approx(whole.kl_divergence, rel=1e-12)
    assert same == whole.same_top_1
    assert 0 < same < 1
    assert all(0 <= record["same_top_1"] <= record["tokens"] for record in records)


@pytest.mark.usefixtures("kept")
def test_another_model_baseline_or_number_of_models_is_refused(models, text, tmp_path):
    lines, (model, baseline) = tmp_path / "lines", models
    with pytest.raises(KeyboardInterrupt):
        compare((model, Interrupted(baseline, 3)), text, "carry", lines)
    with pytest.raises(DataError, match=r"lines\.progress: baseline must be"):
        compare((model, model), text, "carry", lines, resume=True)
    with pytest.raises(DataError, match=r"lines\.progress: model must be"):
        compare((baseline, baseline), text, "carry", lines, resume=True)
    with pytest.raises(DataError, match=r"lines\.progress: protocol must be"):
        compare(models, text, "rolling", lines, resume=True)
    settings = settle("carry", **PROTOCOLS["carry"])
    arguments = (model, model.tokenizer, open_source(str(text)), settings, None, 1, lines, True)
    with pytest.raises(DataError, match=r"lines\.progress: baseline must be None"):
        measure_perplexity(*arguments)
    by_words = replace(arguments[2], line_ends=True)
    with pytest.raises(DataError, match=r"lines\.progress: word_level must be True"):
        compare_tokens(*models, model.tokenizer, by_words, settings, None, 1, lines, True)


@pytest.mark.parametrize(("which", "calls"), [(0, 2), (1, 0), (1, 3)])
@pytest.mark.usefixtures("kept")
def test_a_comparison_with_two_tokenizers_goes_on_in_either_pass(
    models, text, tmp_path, which, calls
):
    whole, lines, stopped = compare_twice(models, text), tmp_path / "lines", list(models)
    stopped[which] = Interrupted(models[which], calls)
    with pytest.raises(KeyboardInterrupt):
        compare_twice(stopped, text, lines)
    if which:
        stopped[0] = Interrupted(models[0], 0)  # its pass is over
    stopped[which] = models[which]
    assert compare_twice(stopped, text, lines, resume=True) == whole
    documents = baseline_lines(lines).read_bytes().splitlines()
    assert sum(json.loads(line)["bytes"] > 0 for line in documents) == whole.interval_count


def test_a_baseline_file_in_the_way_is_refused_before_the_first_pass(models, text, tmp_path):
    (tmp_path / "lines.baseline").write_text("precious\n")
    stopped = (Interrupted(models[0], 0), models[1])
    with pytest.raises(DataError, match=r"lines\.baseline: must not exist"):
        compare_twice(stopped, text, tmp_path / "lines")
    assert (tmp_path / "lines.baseline").read_text() == "precious\n"
