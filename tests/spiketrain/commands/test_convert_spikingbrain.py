"""From a published SpikingBrain directory to a package, on the command line."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain.cli import main

DATA = Path(__file__).parents[2] / "data" / "spikingbrain"


def run(monkeypatch, *arguments):
    """Exit code of the command line."""
    monkeypatch.setattr("sys.argv", ["spiketrain", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code or 0


def test_a_dry_run_says_what_would_be_written(tmp_path, monkeypatch, capsys):
    package = tmp_path / "package"
    assert run(monkeypatch, "convert", DATA / "w8_g32", package, "--dry-run") == 0
    printed = capsys.readouterr()
    assert "87 tensors" in printed.out
    assert "6 files" in printed.out
    assert "window_keys 17: sliding_window + 1" in printed.err
    assert "weights int8: as they are stored" in printed.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--max-memory", "1M"), 1, "--max-memory must be at least"),
        (("--max-memory", "lots"), 2, "must be a number of bytes such as 4G"),
        (("--semantics", "rwkv4"), 2, "is not for SpikingBrain"),
        (("--down-proj", "both"), 2, "must be one of published, spiked"),
        (("--calib", "x"), 2, "both it and --target-sparsity"),
        (("--recipe", "transformer-to-spiking", "--calib", "x", "--resume"), 2, "published"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path, monkeypatch, capsys, arguments, code, message):
    package = tmp_path / "package"
    dry = () if "--recipe" in arguments else ("--dry-run",)
    assert run(monkeypatch, "convert", DATA / "fp", package, *arguments, *dry) == code
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_options_of_a_published_directory_are_refused_elsewhere(tmp_path, monkeypatch, capsys):
    source = DATA.parent / "spikegpt" / "v77_l3.pth"
    assert run(monkeypatch, "convert", source, tmp_path / "p", "--max-memory", "4G") == 2
    assert "needs a published SpikingBrain" in " ".join(capsys.readouterr().err.split())
