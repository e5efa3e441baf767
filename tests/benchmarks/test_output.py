"""What a benchmark prints and writes."""

import json

import pytest
from harness import Report, Turns, parser
from harness.output import duration, rate
from harness.turns import Sample


@pytest.fixture
def turns():
    samples = {"old": [0.002, 0.001, 0.004], "new": [0.001, 0.001, 0.002]}
    return Turns({name: [Sample(s, s) for s in times] for name, times in samples.items()})


def options(*arguments):
    return parser("What it measures.\n\nMore.", rounds=3).parse_args(arguments)


def test_a_table_has_medians_spreads_and_ratios_to_the_first(turns, capsys):
    Report(options()).turns("Decoding", "token", turns, {"fires": {"new": "15 %"}})
    lines = capsys.readouterr().out.splitlines()
    assert "Decoding; times for each token" in lines
    old, new = lines[-2:]
    assert old == "| old | 500 | 2 ms (1 ms to 4 ms) | 2 ms | 1.00x | 1.00x |  |"
    assert new == "| new | 1,000 | 1 ms (1 ms to 2 ms) | 1 ms | 0.50x | 0.50x | 15 % |"


def test_variants_that_do_different_things_have_no_ratios(turns, capsys):
    Report(options()).turns("Calls", "call", turns, compare=False)
    assert "x |" not in capsys.readouterr().out


def test_the_file_names_machine_and_command_and_holds_every_round(turns, tmp_path, capsys):
    report = Report(options("--json", str(tmp_path / "out.json"), "--rounds", "3"))
    report.turns("Decoding", "token", turns, facts={"threads": 2})
    report.table("Sizes", ["what", "bytes"], [["state", "12"]])
    report.finish()
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["rounds"] == 3
    assert content["command"] in capsys.readouterr().out
    assert {"cpu", "cores", "build", "versions"} <= content["machine"].keys()
    decoding, sizes = content["sections"]
    assert decoding["facts"] == {"threads": 2}
    assert decoding["variants"]["new"]["wall_of_first"]["median"] == 0.5
    assert decoding["variants"]["new"]["rounds"][2] == {"wall_s": 0.002, "processor_s": 0.002}
    assert sizes["rows"] == [["state", "12"]]


def test_no_file_is_written_unless_one_is_named(turns, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = Report(options())
    report.turns("Decoding", "token", turns)
    report.finish()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0 us"), (3.21e-6, "3.21 us"), (4e-3, "4 ms"), (12.34, "12.3 s"), (1234.0, "1234 s")],
)
def test_a_duration_has_the_unit_that_suits_it(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, ""), (1 / 2500, "2,500"), (0.3, "3.33")])
def test_a_rate_has_three_digits_or_all_before_the_point(seconds, shown):
    assert rate(seconds) == shown
