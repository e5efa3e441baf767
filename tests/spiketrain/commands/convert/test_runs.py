"""From a recipe to a package that generates: the commands train and convert."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from command_in_process import call  # noqa: E402
from tiny_runs import FINE_TUNE, GRU, RWKV, with_model, write_recipe  # noqa: E402

from spiketrain import runtime  # noqa: E402

DATA = Path(__file__).parents[3] / "data" / "egru"


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path)


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_a_trained_run_becomes_a_package_that_reads_and_writes_text(
    recipe, tmp_path, monkeypatch, capsys, weights
):
    folder, package = tmp_path / "run", tmp_path / "package"
    assert call(monkeypatch, "train", recipe, "--out", folder, "--json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["tokens"] == 512
    assert call(monkeypatch, "convert", folder, package, "--weights", weights) == 0
    model = runtime.load_model(package)
    assert model.eos_token_ids == (1,)
    assert model.tokenizer.decode(model.tokenizer.encode("The hen")) == "The hen"
    assert (
        call(monkeypatch, "eval", "ppl", package, "--data", tmp_path / "tales.txt", "--json") == 0
    )
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured["bits_per_byte"] == pytest.approx(result["valid_bits_per_byte"], rel=0.02)


def test_convert_folds_a_projection_on_request_and_says_what_lacks_one(
    recipe, tmp_path, monkeypatch, capsys
):
    text = recipe.read_text().replace("[24, 16]", "[24, 20]\nprojection = true")
    recipe.write_text(text)
    folder, package = tmp_path / "run", tmp_path / "package"
    assert call(monkeypatch, "train", recipe, "--out", folder) == 0
    assert call(monkeypatch, "convert", folder, package, "--fold-projection") == 0
    config = runtime.load_model(package).config
    assert not config["projection"]
    assert "--fold-projection" in config["spiketrain"]["provenance"]["command"]
    capsys.readouterr()
    source = DATA / "lm_tied_noproj.cpt"
    assert call(monkeypatch, "convert", source, tmp_path / "q", "--fold-projection") == 2
    assert "--fold-projection" in capsys.readouterr().err
    assert not (tmp_path / "q").exists()


@pytest.mark.slow
def test_a_gru_becomes_an_egru_step_by_step(recipe, tmp_path, monkeypatch, capsys):
    with_model(recipe, GRU, 3072)
    (tmp_path / "fine.toml").write_text(FINE_TUNE)
    teacher, package, text = tmp_path / "gru", tmp_path / "package", tmp_path / "tales.txt"
    text.write_text(text.read_text() * 4)
    assert call(monkeypatch, "train", recipe, "--out", teacher, "--json") == 0
    arguments = ("convert", teacher, package, "--recipe", "gru-to-egru", "--calib", text,
                 "--target-sparsity", "0.7", "--fine-tune", tmp_path / "fine.toml")  # fmt: skip
    assert call(monkeypatch, *arguments) == 0
    assert "fine-tuned" in capsys.readouterr().err
    report = json.loads((package / "report.json").read_text())
    stages = {stage["stage"]: stage for stage in report["stages"]}
    assert list(stages) == ["teacher", "copied", "calibrated", "fine-tuned"]
    bits = {name: stage["bits_per_byte"] for name, stage in stages.items()}
    assert bits["copied"] == pytest.approx(bits["teacher"], rel=1e-4)
    assert all(0.24 <= rate <= 0.3 for rate in stages["calibrated"]["firing_rates"])
    assert bits["fine-tuned"] < bits["calibrated"]
    assert call(monkeypatch, "eval", "ppl", package, "--data", text, "--json") == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured["bits_per_byte"] == pytest.approx(bits["fine-tuned"], rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (("--calib", "x"), "--calib"),
        (("--target-sparsity", "0.5"), "--target-sparsity"),
        (("--set", "seed=2"), "--set"),
        (("--recipe", "gru-to-egru", "--calib", "x", "--dry-run"), "--dry-run"),
        (("--recipe", "gru-to-egru", "--calib", "x", "--semantics", "rwkv4"), "--semantics"),
        (("--recipe", "gru-to-egru", "--calib", "x", "--set", "seed=2"), "--set"),
    ],
)
def test_an_option_that_has_no_use_is_refused(tmp_path, monkeypatch, capsys, arguments, flag):
    assert call(monkeypatch, "convert", tmp_path, tmp_path / "p", *arguments) == 2
    assert flag in capsys.readouterr().err


def test_a_recipe_looks_at_its_target_before_it_works(tmp_path, monkeypatch, capsys):
    (tmp_path / "p").mkdir()
    arguments = ("--recipe", "gru-to-egru", "--calib", tmp_path / "none")
    assert call(monkeypatch, "convert", tmp_path, tmp_path / "p", *arguments) == 1
    assert "must not exist yet" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "rates"), [("residual", 4), ("projections", 9)])
def test_an_rwkv_becomes_a_spikegpt_step_by_step(
    recipe, tmp_path, monkeypatch, capsys, variant, rates
):
    with_model(recipe, RWKV, 3072)
    fine = FINE_TUNE.replace("egru", "spikegpt").replace("pseudo_derivative_floor = 0.2", "")
    (tmp_path / "fine.toml").write_text(fine)
    teacher, package, text = tmp_path / "rwkv", tmp_path / "package", tmp_path / "tales.txt"
    text.write_text(text.read_text() * 4)
    assert call(monkeypatch, "train", recipe, "--out", teacher, "--json") == 0
    arguments = ("convert", teacher, package, "--recipe", "rwkv-to-spikegpt", "--calib", text,
                 "--variant", variant, "--target-sparsity", "0.7",
                 "--fine-tune", tmp_path / "fine.toml")  # fmt: skip
    dial = ("--max-dial", "2") if variant == "projections" else ()
    assert call(monkeypatch, *arguments, *dial) == 0
    assert "fine-tuned" in capsys.readouterr().err
    report = json.loads((package / "report.json").read_text())
    assert report["variant"] == variant
    assert len(report.get("dials", [])) == (5 if dial else 0)
    assert runtime.load_model(package).max_dial == (2.0 if dial else 1.0)
    stages = {stage["stage"]: stage for stage in report["stages"]}
    assert list(stages) == ["teacher", "copied", "calibrated", "fine-tuned"]
    assert stages["teacher"]["firing_rates"] == []
    assert len(stages["calibrated"]["firing_rates"]) == rates
    assert all(0.23 <= rate <= 0.31 for rate in stages["calibrated"]["firing_rates"])
    bits = {name: stage["bits_per_byte"] for name, stage in stages.items()}
    assert bits["fine-tuned"] < bits["calibrated"]
    config = runtime.load_model(package).config
    assert config["neuron_position"] == variant
    assert not config["binary_embedding"]
    assert f"--variant {variant}" in config["spiketrain"]["provenance"]["command"]
    assert call(monkeypatch, "eval", "ppl", package, "--data", text, "--json") == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured["bits_per_byte"] == pytest.approx(bits["fine-tuned"], rel=0.02)


def test_a_run_that_a_recipe_does_not_fit_is_refused(recipe, tmp_path, monkeypatch, capsys):
    text = tmp_path / "tales.txt"
    with_model(recipe, RWKV.replace("none", "residual"))
    assert call(monkeypatch, "train", recipe, "--out", tmp_path / "run") == 0
    capsys.readouterr()
    for options, message in (
        (("gru-to-egru",), "teacher must be a run of family 'gru'"),
        (("rwkv-to-spikegpt",), "teacher's neuron_position must be 'none', got 'residual'"),
        (("rwkv-to-spikegpt", "--variant", "paired"), "variant of rwkv-to-spikegpt must be one of"),
    ):
        arguments = (tmp_path / "run", tmp_path / "p", "--calib", text, "--recipe", *options)
        assert call(monkeypatch, "convert", *arguments) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--recipe", "gru-to-egru"), 2, "--calib"),
        (("--variant", "single"), 2, "--variant"),
        (("--recipe", "lstm-to-egru", "--calib", "tales.txt"), 1, "recipe must be one of"),
        (("--recipe", "gru-to-egru", "--calib", "tales.txt"), 1, "must be a finished run"),
        (("--recipe", "gru-to-egru", "--calib", "x", "--target-sparsity", "1.5"), 2, "between"),
        (("--recipe", "gru-to-egru", "--calib", "x", "--max-dial", "2"), 2, "needs spike counts"),
        (("--recipe", "rwkv-to-spikegpt", "--calib", "x", "--max-dial", "2"), 2, "spike counts"),
        (("--max-dial", "1"), 2, "must be above 1 and at most 16"),
        (("--max-dial", "nan"), 2, "must be above 1 and at most 16"),
    ],
)
def test_a_recipe_without_what_it_needs_is_refused(
    tmp_path, monkeypatch, capsys, arguments, code, message
):
    assert call(monkeypatch, "convert", tmp_path, tmp_path / "p", *arguments) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_the_official_checkpoint_converts(tmp_path, monkeypatch, capsys):
    source = DATA / "lm_tied_noproj.cpt"
    assert call(monkeypatch, "convert", source, tmp_path / "p", "--dry-run") == 0
    assert not (tmp_path / "p").exists()
    assert call(monkeypatch, "convert", source, tmp_path / "p") == 0
    assert runtime.load_model(tmp_path / "p").config["carry"] == "output"
    assert call(monkeypatch, "convert", source, tmp_path / "p") == 1
    assert "--force" in capsys.readouterr().err
    assert call(monkeypatch, "convert", source, tmp_path / "p", "--weights", "int8", "--force") == 0


def test_what_a_published_spikegpt_is_taken_for_is_said(tmp_path, monkeypatch, capsys):
    source, package = DATA.parent / "spikegpt" / "v97_l3.pth", tmp_path / "p"
    assert call(monkeypatch, "convert", source, package, "--dry-run") == 0
    said = capsys.readouterr()
    assert "binary_embedding true: as the training code does" in said.err
    assert "spikegpt, 175,296 parameters" in said.out
    chosen = ("--semantics", "rwkv4", "--choose", "layer_norm_eps=1e-6")
    assert call(monkeypatch, "convert", source, package, "--dry-run", *chosen) == 0
    assert "neuron_position none" in capsys.readouterr().err
    for options, code, message in (
        (("--semantics", "rwkv7"), 2, "--semantics"),
        (("--choose", "rescale"), 2, "--choose"),
        (("--choose", "width=3"), 1, "choices must be among"),
        (("--rescaled",), 1, "rescaled says nothing"),
    ):
        assert call(monkeypatch, "convert", source, package, *options) == code
        assert message in capsys.readouterr().err


def test_bad_input_is_one_line_and_the_right_code(recipe, tmp_path, monkeypatch, capsys):
    source = DATA / "lm_tied_noproj.cpt"
    cases = [
        (("convert", tmp_path / "none", tmp_path / "p"), 1, "no such file"),
        (("convert", source, tmp_path / "p", "--weights", "int3"), 2, "--weights"),
        (("convert", source, tmp_path / "p", "--tokenizer", recipe), 1, "--tokenizer"),
        (("train", tmp_path / "none.toml"), 1, "none.toml"),
        (("train", recipe, "--out", tmp_path / "r", "--set", "run.tokens=0"), 1, "run.tokens"),
        (("train", recipe, "--out", tmp_path / "r", "--set", "data.train=no"), 1, "no not found"),
        (("train", recipe, "--out", tmp_path / "r", "--set", "model.family=x"), 1, "model.family"),
        (("train",), 2, "Usage"),
    ]
    for arguments, code, message in cases:
        assert call(monkeypatch, *arguments) == code
        err = capsys.readouterr().err
        assert message in err, arguments
        assert "Traceback" not in err
    assert not (tmp_path / "p").exists()


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch, capsys):
    from importlib import util

    monkeypatch.setattr(util, "find_spec", lambda name: None)
    assert call(monkeypatch, "convert", DATA / "lm_tied_noproj.cpt", tmp_path / "p") == 1
    assert "spiketrain[train]" in capsys.readouterr().err
