"""`spiketrain eval activity`: tables, pictures and pages."""

import hashlib
import json
import re

import pytest
import tiny_spikingbrain

from spiketrain.cli import main


def test_a_model_without_spikes_has_nothing_to_record(tmp_path, monkeypatch, capsys):
    package = tiny_spikingbrain.tiny_spikingbrain_package(tmp_path / "p", "float32")
    (tmp_path / "t.txt").write_text("An owl flew over the wood.")
    for arguments in (["activity"], ["ppl"]):
        command = ["spiketrain", "eval", *arguments, str(package), "--data"]
        monkeypatch.setattr("sys.argv", [*command, str(tmp_path / "t.txt")])
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code
    out = capsys.readouterr().out
    assert "recorded tokens" not in out
    assert "nothing in this model spikes" in out


def test_the_table_names_what_was_measured(models, tmp_path, monkeypatch, capsys):
    (tmp_path / "t.txt").write_text("An owl flew over the wood.")
    model = models["egru"]
    arguments = [model.path, "--data", tmp_path / "t.txt", "--record", 0]
    monkeypatch.setattr("sys.argv", ["spiketrain", "eval", "activity", *map(str, arguments)])
    with pytest.raises(SystemExit):
        main()
    out = capsys.readouterr().out
    text_hash = hashlib.sha256((tmp_path / "t.txt").read_bytes()).hexdigest()
    for found in (model.fingerprint, model.tokenizer.hash, f"sha256:{text_hash}"):
        assert found in out


@pytest.mark.parametrize("page", ["absent/page.html", "."])
def test_a_page_that_cannot_be_written_is_refused_at_once(
    models, tmp_path, monkeypatch, capsys, page
):
    absent = ["--data", tmp_path / "absent.txt", "--html", tmp_path / page]
    command = ["spiketrain", "eval", "activity", models["egru"].path, *absent]
    monkeypatch.setattr("sys.argv", [*map(str, command)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "--html" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_writes_pictures_and_a_page(models, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "t.txt").write_text("An owl flew over the wood, and a fox sat under it. " * 9)
    for name in models:
        page, folder = tmp_path / f"{name}.html", tmp_path / name
        arguments = [models[name].path, "--data", tmp_path / "t.txt", "--limit", 400, "--json"]
        arguments += ["--record", 100, "--html", page, "--png", folder]
        monkeypatch.setattr("sys.argv", ["spiketrain", "eval", "activity", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code
        report = json.loads(capsys.readouterr().out)
        assert report["tokens"] == 400
        assert report["energy_per_token"]["event_driven"]["compute_pj"] > 0
        text = page.read_text("utf-8")
        assert text.count("data:image/png;base64,") == 4
        words = re.sub(r"base64,[\w+/=]+", "", text)  # where letters stand by chance
        assert "http" not in words.replace("http-equiv", "")
        assert {path.name for path in folder.iterdir()} == {
            "raster.png", "firing-rates.png", "counts.png", "positions.png",
        }  # fmt: skip
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())
