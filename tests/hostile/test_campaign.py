"""The campaign: a slice of each surface, what was found replayed, and what a worker notices."""

import os
import signal
from types import SimpleNamespace

import campaign
import pytest
import totals
from surface import Surface
from worker import findings

SLICE = 12


def ready(name):
    if need := campaign.lacking(name):
        pytest.skip(f"{need} is not installed")
    return campaign.prepared(name)


@pytest.mark.parametrize("name", campaign.NAMES)
def test_a_slice_of_each_surface_is_dealt_with_as_documented(name):
    with ready(name) as surface:
        inputs = surface.inputs(0, 0, SLICE)
        assert inputs == surface.inputs(0, 0, SLICE)
        assert inputs != surface.inputs(1, 0, SLICE)
        assert findings(surface, inputs) == []


FOUND = sorted(path for path in totals.FOUND.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_is_dealt_with_as_documented(path):
    with ready(path.parent.name) as surface:
        assert findings(surface, [path.read_bytes()]) == []


class Opened:
    """A context whose value is a function."""

    def __init__(self, call):
        self.call = call

    def __enter__(self):
        return self.call

    def __exit__(self, *exc):
        pass


def surface_of(call):
    module = SimpleNamespace(open_calls=lambda seeds: Opened(call), allowed=lambda: (KeyError,))
    return Surface("fake", module, None)


def test_a_documented_error_is_no_finding_and_any_other_is():
    def call(data):
        raise {b"k": KeyError, b"v": ValueError}[data]("wat")

    (only,) = findings(surface_of(call), [b"k", b"v", b"k"])
    assert only.input == b"v"
    assert "ValueError: wat" in only.what


def test_a_crash_is_found_among_many_inputs():
    def call(data):
        if data == b"7":
            os.kill(os.getpid(), signal.SIGSEGV)

    (only,) = findings(surface_of(call), [b"%d" % number for number in range(20)])
    assert only.input == b"7"
    assert "SIGSEGV" in only.what


def test_a_hang_is_found_among_many_inputs(monkeypatch):
    for limit, seconds in {"START_S": 1, "INPUT_S": 0, "TYPICAL_S": 0.0}.items():
        monkeypatch.setattr(f"worker.{limit}", seconds)

    def call(data):
        while data == b"3":
            pass

    (only,) = findings(surface_of(call), [b"1", b"2", b"3", b"4"])
    assert only.input == b"3"
    assert "SIGXCPU" in only.what or "SIGALRM" in only.what


def test_memory_beyond_the_limit_is_a_finding():
    (only,) = findings(surface_of(lambda data: bytes(8 << 30)), [b"1"])
    assert "MemoryError" in only.what


def test_totals_go_on_and_findings_are_kept(tmp_path, monkeypatch, capsys):
    module = SimpleNamespace(
        TARGET=1000,
        BATCH=10,
        make=lambda chance, seeds: chance.randbytes(4),
        prepare=lambda folder: None,
        open_calls=lambda seeds: Opened(lambda data: 1 / 0),
        allowed=lambda: (),
    )
    monkeypatch.setattr(campaign, "module_of", lambda name: module)
    monkeypatch.setattr(totals.keep, "__defaults__", (tmp_path / "found",))
    counted = {"seed": 1, "surfaces": {"fake": {"inputs": 990, "findings": 2}}}
    line, found = campaign.campaign("fake", 0.0, counted)
    assert counted["surfaces"]["fake"] == {"inputs": 1000, "findings": 12}
    assert len(list((tmp_path / "found" / "fake").iterdir())) == len(found) == 10
    assert "| 1,000 | 0.0 |" in line
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_page_shows_the_totals():
    page = totals.PAGE.read_text()
    modules = [name for name in campaign.NAMES if campaign.lacking(name)]
    if modules:
        pytest.skip(f"the targets of {modules} need what is not installed")
    assert totals.written_into(page, totals.table(totals.read(), campaign.targets())) == page
