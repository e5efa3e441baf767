"""`spiketrain eval activity` and `spiketrain bench`, interrupted: what there is is kept."""

import json
import signal

import pytest
import tiny
from interrupted_model import Interrupted, write_documents

from spiketrain.cli import main
from spiketrain.commands.eval import models as eval_models
from spiketrain.evaluation import activity as measuring
from spiketrain.evaluation import rapl
from spiketrain.evaluation.bench import Bench


class Signalled(Interrupted):
    """A model at whose nth call the process gets SIGINT."""

    def _count(self):
        self._calls -= 1
        if self._calls == -1:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def interruptible():
    """SIGINT raises KeyboardInterrupt, even if whoever started the tests ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny.tiny_egru_package(tmp_path_factory.mktemp("interrupted") / "package")


@pytest.fixture
def call(monkeypatch, capsys):
    """Exit code, output and messages of the command line."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["spiketrain", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def activity(package, tmp_path, monkeypatch, call):
    """`eval activity` of 300 tokens, 100 of them recorded; SIGINT at call `calls` of the model."""
    text, opened = write_documents(tmp_path / "text.txt"), eval_models.open_package

    def run(*arguments, calls=None, limit=300):
        def limited(*where):
            model, tokenizer = opened(*where)
            return model if calls is None else Signalled(model, calls), tokenizer

        monkeypatch.setattr(eval_models, "open_package", limited)
        sizes = ("--limit", limit, "--record", 100)
        return call("eval", "activity", package, "--data", text, *sizes, *arguments)

    return run


def without_times(report):
    timed = ("tokens_per_s", "joules_measured", "interrupted")
    return {key: value for key, value in report.items() if key not in timed}


def test_interrupted_counting_reports_the_tokens_so_far(activity):
    status, out, err = activity("--json", calls=120)
    found = json.loads(out)
    assert (status, found["tokens"], found["recorded_tokens"]) == (130, 121, 0)
    assert err == "interrupted: counted 121 of 300 tokens, recorded 0 of 100\n"
    whole = json.loads(activity("--json", limit=121)[1])
    assert (found["interrupted"], whole["interrupted"]) == (True, False)
    assert (found["layers"], found["total"]) == (whole["layers"], whole["total"])
    assert found["energy_per_token"] == whole["energy_per_token"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupted_recording_keeps_what_it_has(activity):
    status, out, err = activity("--json", calls=340)
    found = json.loads(out)
    assert status == 130
    assert err == "interrupted: counted 300 of 300 tokens, recorded 64 of 100\n"
    whole = json.loads(activity("--json", "--record", 64)[1])
    assert without_times(found) == without_times(whole)


@pytest.mark.parametrize(("calls", "pictures"), [(120, 0), (340, 3), (403, 4)])
def test_an_interrupted_report_still_has_its_page(activity, tmp_path, calls, pictures):
    pytest.importorskip("matplotlib")
    page, folder = tmp_path / "page.html", tmp_path / "pictures"
    status, out, err = activity("--html", page, "--png", folder, calls=calls)
    assert status == 130
    assert err.startswith("interrupted: counted ")
    assert "total" in out
    assert page.read_text("utf-8").count("data:image/png;base64,") == pictures
    assert len(list(folder.iterdir())) == pictures


def test_an_interrupt_before_the_first_token_reports_nothing(activity, monkeypatch):
    class Interrupting(rapl.Rapl):
        def start(self):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(measuring, "Rapl", Interrupting)
    assert activity("--json")[:2] == (130, "")


def test_a_second_interrupt_ends_at_once(activity, monkeypatch):
    def twice(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(measuring, "record", twice)
    assert activity("--json")[:2] == (130, "")


FAST = ("--contexts", "0,50", "--prefills", "8,16", "--batches", "1,3", "--tokens", "4",
        "--rounds", "1", "--threads", "1")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "counts"), [(0, [0, 0, 0, 0]), (3, [2, 1, 0, 0]), (6, [2, 2, 2, 0])]
)
def test_an_interrupted_bench_keeps_its_rows(package, monkeypatch, call, rows, counts):
    median, calls = Bench._median, []

    def counted(bench, work):
        calls.append(None)
        if len(calls) > rows:
            signal.raise_signal(signal.SIGINT)
        return median(bench, work)

    monkeypatch.setattr(Bench, "_median", counted)
    status, out, err = call("bench", package, *FAST, "--json")
    assert (status, err) == (130, "interrupted: the rows above are those that were measured\n")
    found = json.loads(out)
    names = ("by_context", "by_batch", "prefill", "by_threads")
    assert [len(found[name]) for name in names] == counts
    assert found["interrupted"] is True
    calls.clear()
    status, out, _ = call("bench", package, *FAST)
    assert status == 130
    assert ("context 50" in out) == (rows >= 2)
