import json

import pytest
import tiny
from command_in_process import call


def run(monkeypatch, *arguments):
    """Exit code of the command line."""
    return call(monkeypatch, "bench", *arguments)


FAST = ("--contexts", "0,50", "--prefills", "8,16", "--batches", "1,3", "--tokens", "4",
        "--rounds", "1", "--threads", "2")  # fmt: skip


@pytest.mark.slow
def test_every_row_that_was_asked_for_is_there(tmp_path, monkeypatch, capsys):
    package = tiny.tiny_egru_package(tmp_path / "p")
    assert run(monkeypatch, package, *FAST, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["context"] for row in found["by_context"]] == [0, 50]
    assert len({row["state_bytes"] for row in found["by_context"]}) == 1
    assert found["memory_of_loading_bytes"] >= 0
    assert [row["threads"] for row in found["by_threads"]] == [1, 2]
    assert [row["batch"] for row in found["by_batch"]] == [1, 3]
    assert [row["tokens"] for row in found["prefill"]] == [8, 16]
    for row in found["by_context"]:
        assert row["tokens_per_s"] > 0
        share = row["weight_bytes_per_token"] * row["tokens_per_s"] / found["read_bytes_per_s"]
        assert row["share_of_read_bandwidth"] == pytest.approx(share)
        assert row["weight_bytes_per_token"] > 0


@pytest.mark.slow
def test_the_table_and_the_picture(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    package = tiny.tiny_egru_package(tmp_path / "p")
    assert run(monkeypatch, package, *FAST, "--png", tmp_path / "p.png") == 0
    out = capsys.readouterr().out
    for part in ("context 50", "2 threads", "batch 3", "16 tokens", "read bandwidth"):
        assert part in out
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments",
    [["--contexts", "a"], ["--batches", "0"], ["--rounds", "0"], ["--png", "/absent/x.png"]],
)
def test_bad_usage_is_exit_code_2(monkeypatch, arguments):
    assert run(monkeypatch, *arguments) == 2
