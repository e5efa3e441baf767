"""The command that a package records makes the package again, for every kind of source."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from byte_level import byte_level  # noqa: E402
from command_in_process import call  # noqa: E402
from golden_gguf import golden_file  # noqa: E402
from tiny import byte_tokenizer  # noqa: E402
from tiny_llama import TEACHER, llama_directory  # noqa: E402
from tiny_runs import FINE_TUNE, GRU, RWKV, with_model, write_recipe  # noqa: E402

from spiketrain.lm.checkpoint import read_checkpoint  # noqa: E402
from spiketrain.lm.families.spikegpt import Config, Model  # noqa: E402

DATA = Path(__file__).parents[3] / "data"
TEXT = "The hen and the fox saw the moon in the well. " * 6


@pytest.fixture
def replay(tmp_path, monkeypatch, capsys):
    """Convert into "package" in tmp_path, then run the recorded command into "again".

    Both have one fingerprint; changes: options without which the fingerprint is another, of which
    each is therefore worth recording.
    """
    monkeypatch.chdir(tmp_path)

    def run(source, *options, changes=()):
        command, fingerprint = converted(source, "package", *options)
        words = shlex.split(command)
        assert words[:4] == ["spiketrain", "convert", str(source), "package"]
        again, same = converted(source, "again", *words[4:])
        assert same == fingerprint
        assert shlex.split(again)[4:] == words[4:]
        for change in changes:
            at = words.index(change)
            _, other = converted(source, change.strip("-"), *words[4:at], *words[at + 2 :])
            assert other != fingerprint, change

    def converted(source, target, *options):
        capsys.readouterr()
        code = call(monkeypatch, "convert", source, target, *options)
        assert code == 0, capsys.readouterr().err
        found = json.loads(Path(target, "config.json").read_text())["spiketrain"]
        return found["provenance"]["command"], found["fingerprint"]

    return run


def train(monkeypatch, recipe, run):
    assert call(monkeypatch, "train", recipe, "--out", run) == 0


def test_a_run(tmp_path, monkeypatch, replay):
    recipe = write_recipe(tmp_path)
    recipe.write_text(recipe.read_text().replace("[24, 16]", "[24, 20]\nprojection = true"))
    train(monkeypatch, recipe, "run")
    Path("a file.txt").write_text("of its own")
    options = ("--weights", "int8", "--fold-projection", "--file", "a file.txt")
    replay("run", *options, "--licence", "CC BY 4.0", "--force", changes=["--weights"])


def test_a_directory_of_ours(tmp_path, replay):
    torch.manual_seed(0)
    Model(Config(vocab_size=257, hidden_size=32, num_hidden_layers=2)).save_pretrained("own")
    Path("bytes.json").write_text(json.dumps(byte_tokenizer(257)))
    options = ("--weights", "int8", "--head-weights", "int4", "--tokenizer", "bytes.json")
    replay("own", *options, changes=["--head-weights"])


def test_a_spikingbrain_of_ours_that_a_text_is_read_with(replay):
    read_checkpoint(DATA / "spikingbrain" / "w8_g32").model.save_pretrained("own")
    Path("own", "tokenizer.json").write_text(byte_level(190))
    Path("text.txt").write_text(TEXT)
    options = ("--weights", "bfloat16", "--window-cache", "int8", "--max-dial", "1.7")
    text = ("--calib", "text.txt", "--target-sparsity", "0.55")
    replay("own", *options, *text, changes=["--target-sparsity"])


def test_an_official_egru(replay):
    replay(DATA / "egru" / "lm_tied_noproj.cpt", "--weights", "bfloat16", changes=["--weights"])


@pytest.mark.parametrize("semantics", ["spikegpt", "rwkv4"])
def test_an_official_spikegpt(replay, semantics):
    options = ("--semantics", semantics, "--choose", "layer_norm_eps=1e-6")
    replay(DATA / "spikegpt" / "v97_l3.pth", *options, changes=["--choose"])


def test_a_hugging_face_rwkv4(replay):
    torch.manual_seed(0)
    sizes = {"vocab_size": 77, "hidden_size": 16, "num_hidden_layers": 5, "rescale_every": 2}
    model = transformers.RwkvForCausalLM(transformers.RwkvConfig(**sizes))
    model.save_pretrained("rwkv")
    replay("rwkv", "--rescaled", "--weights", "int8", changes=["--weights"])


def test_a_published_spikingbrain(replay):
    shutil.copytree(DATA / "spikingbrain" / "w8_g32", "source")
    Path("bytes").mkdir()
    Path("bytes", "words.json").write_text(byte_level(190))
    Path("bytes", "config.json").write_text('{"eos_token_id": 0}')
    Path("text.txt").write_text(TEXT)
    options = ("--window-keys", "12", "--down-proj", "spiked", "--max-memory", "16G", "--resume")
    text = ("--tokenizer", "bytes/words.json", "--calib", "text.txt", "--target-sparsity", "0.55")
    replay("source", *options, *text, "--max-dial", "2.5",
           changes=["--window-keys", "--target-sparsity"])  # fmt: skip


def test_a_gguf_file(tmp_path, replay):
    golden_file(tmp_path, "llama_gqa_tied")
    options = ("--recipe", "transformer-to-spiking", "--k", "4", "--dead-zone", "0.75")
    window = ("--window-keys", "40", "--window-cache", "int8", "--max-dial", "2.5")
    replay("llama_gqa_tied.gguf", *options, *window, "--weights", "bfloat16", "--force",
           changes=["--k", "--dead-zone", "--window-keys", "--window-cache"])  # fmt: skip


def test_a_copy_of_a_gguf_file(tmp_path, replay):
    golden_file(tmp_path, "qwen2_bias")
    options = ("--recipe", "transformer-to-spiking", "--no-spikes", "--weights", "bfloat16")
    replay("qwen2_bias.gguf", *options, "--max-memory", "16G", changes=["--weights"])


def test_a_gru_that_becomes_an_egru(tmp_path, monkeypatch, replay):
    with_model(write_recipe(tmp_path), GRU)
    Path("fine.toml").write_text(FINE_TUNE)
    Path("calib.txt").write_text(Path("tales.txt").read_text() * 4)
    train(monkeypatch, "recipe.toml", "gru")
    options = ("--calib", "calib.txt", "--measure", "tales.txt", "--target-sparsity", "0.7")
    tuned = ("--fine-tune", "fine.toml", "--set", "run.tokens=512", "--variant", "single")
    replay("gru", "--recipe", "gru-to-egru", *options, *tuned, "--weights", "int8",
           changes=["--target-sparsity", "--set"])  # fmt: skip


def test_an_rwkv4_that_becomes_a_spikegpt(tmp_path, monkeypatch, replay):
    with_model(write_recipe(tmp_path), RWKV)
    Path("calib.txt").write_text(Path("tales.txt").read_text() * 4)
    train(monkeypatch, "recipe.toml", "rwkv")
    options = ("--calib", "calib.txt", "--variant", "projections", "--max-dial", "1.9")
    replay("rwkv", "--recipe", "rwkv-to-spikegpt", *options, changes=["--max-dial"])


def test_a_llamas_run_that_becomes_a_spikingbrain(tmp_path, monkeypatch, replay):
    recipe = write_recipe(tmp_path)
    recipe.write_text(TEACHER.replace("12_000", "1_000"))
    Path("calib.txt").write_text(Path("tales.txt").read_text() * 4)
    train(monkeypatch, recipe, "llama")
    options = ("--calib", "calib.txt", "--target-sparsity", "0.3", "--weights", "int4")
    replay("llama", "--recipe", "transformer-to-spiking", *options, changes=["--target-sparsity"])


def test_a_directory_of_a_llama_that_becomes_a_spikingbrain(tmp_path, replay):
    source, recipe = llama_directory(tmp_path)
    options = ("--variant", "linear-spread", "--weights", "int8", "--max-dial", "2")
    replay(source, *recipe, *options, changes=["--variant"])
