"""A run of the loop on a tiny corpus: it learns, resumes exactly, and refuses confusion."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain.training.config import ConfigError, load_config  # noqa: E402
from spiketrain.training.evaluate import evaluate  # noqa: E402
from spiketrain.training.loop import Trainer, train  # noqa: E402

SENTENCE = "the fox and the hen went to the well to see the moon in the water"
WORDS = SENTENCE.split()
RECIPE = """
name = "tiny"
[model]
family = "{family}"
{fields}
[data]
train = "train.txt"
valid = "train.txt"
test = "train.txt"
vocab_size = 300
[optimizer]
learning_rate = 0.01
warmup_tokens = 100
[activity]
penalty = 0.01
target_rate = 0.2
[run]
tokens = 640
batch = 4
steps = 16
threads = 1
precision = "{precision}"
evaluate_every_tokens = 256
evaluate_tokens = 200
checkpoint_minutes = 1e-9
"""


LAYERS = "embedding_size = 16\nhidden_sizes = [24, 16]\ninitial_preactivation = 0.5"
BLOCKS = "hidden_size = 16\nnum_hidden_layers = 2"
DRIVEN = BLOCKS + '\nneuron_position = "projections"'


GRU = f"embedding_size = 12\n{BLOCKS}"
RUNS = (
    ("egru", LAYERS, "adamw"),
    ("lstm", LAYERS, "adamw"),
    ("gru", GRU, "adamw"),
    ("spikegpt", BLOCKS, "adamw"),
    ("spikegpt", DRIVEN, "adamw"),
    ("egru", LAYERS, "muon"),
    ("spikegpt", BLOCKS, "muon"),
)


@pytest.fixture
def recipe(tmp_path):
    def write(family="egru", precision="float32", fields=LAYERS):
        tales = [" ".join(WORDS[i:] + WORDS[:i]) + f" {i}.\n\nEnd {i}" for i in range(12)]
        text = "\n<|endoftext|>\n".join(tales) + "\n<|endoftext|>\n"
        (tmp_path / "train.txt").write_text(text * 3)
        path = tmp_path / "recipe.toml"
        path.write_text(RECIPE.format(family=family, precision=precision, fields=fields))
        return path

    return write


def losses(folder):
    records = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records]


def interrupt(monkeypatch, chunk):
    """Stop the next run before its chunk of this number."""
    step = Trainer._step

    def interrupted(self):
        if self.at.chunk == chunk:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "_step", interrupted)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "fields", "kind"), RUNS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_interrupted_run_goes_on_as_if_nothing_happened(
    recipe, tmp_path, monkeypatch, family, fields, kind, precision
):
    path = recipe(family, precision, fields)
    config = load_config(path, [f"optimizer.kind={kind}"])
    whole = train(config, path, tmp_path / "whole", resume=False, quiet=True)
    interrupt(monkeypatch, chunk=5)
    with pytest.raises(KeyboardInterrupt):
        train(config, path, tmp_path / "parts", resume=False, quiet=True)
    monkeypatch.undo()
    parts = train(config, path, tmp_path / "parts", resume=True, quiet=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    del whole["seconds"], parts["seconds"]
    assert parts == whole


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["egru", "lstm"])
def test_an_interrupted_distillation_goes_on_as_if_nothing_happened(
    recipe, tmp_path, monkeypatch, teacher
):
    path = recipe(teacher)
    train(load_config(path), path, tmp_path / "teacher", resume=False, quiet=True)
    path = recipe()
    token = f"data.tokenizer={tmp_path / 'teacher' / 'tokenizer.model'}"
    distil = [token, f"distil.teacher={tmp_path / 'teacher'}", "distil.weight=0.7", "seed=2"]
    config = load_config(path, distil)
    train(config, path, tmp_path / "whole", resume=False, quiet=True)
    interrupt(monkeypatch, chunk=5)
    with pytest.raises(KeyboardInterrupt):
        train(config, path, tmp_path / "parts", resume=False, quiet=True)
    monkeypatch.undo()
    train(config, path, tmp_path / "parts", resume=True, quiet=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    last = losses(tmp_path / "whole")[-2]
    assert 0 < last["distil_loss"] < last["loss"]  # 0.7 of it is the divergence, without entropy


def test_a_teacher_with_another_tokenizer_is_refused(recipe, tmp_path):
    path = recipe()
    train(load_config(path), path, tmp_path / "teacher", resume=False, quiet=True)
    config = load_config(path, [f"distil.teacher={tmp_path / 'teacher'}", "data.vocab_size=301"])
    with pytest.raises(ConfigError, match=r"distil\.teacher must have this run's tokenizer"):
        train(config, path, tmp_path / "student", resume=False, quiet=True)


LEARNERS = (
    ("egru", ()),
    ("egru", ("model.pseudo_derivative_floor=0.2", "model.projection=true")),
    ("lstm", ("model.projection=true",)),
    ("egru", ("optimizer.kind=muon",)),
)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "fields"), LEARNERS)
def test_a_run_learns_and_leaves_its_files(recipe, tmp_path, family, fields):
    path = recipe(family)
    config = load_config(path, ["run.tokens=6400", *fields])
    result = train(config, path, tmp_path / "run", resume=False, quiet=True)
    first = losses(tmp_path / "run")[0]
    assert result["valid_nll"] < 0.6 * first["valid_nll"]
    assert result["test_tokens"] > 0
    for name in ("checkpoint.pt", "curves.png", "result.json", "tokenizer.model"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert not list((tmp_path / "run").glob("*.partial"))


@pytest.mark.slow
def test_a_folder_with_a_run_is_not_overwritten(recipe, tmp_path):
    path = recipe()
    config = load_config(path)
    train(config, path, tmp_path / "run", resume=False, quiet=True)
    with pytest.raises(ConfigError, match="--resume"):
        train(config, path, tmp_path / "run", resume=False, quiet=True)
    other = load_config(path, ["optimizer.learning_rate=0.5"])
    with pytest.raises(ConfigError, match="another recipe"):
        train(other, path, tmp_path / "run", resume=True, quiet=True)
    stored = tmp_path / "run" / "config.json"
    written = json.loads(stored.read_text())
    assert written["data"].pop("end_of_text") is None  # as of a run from before it was a field
    stored.write_text(json.dumps(written))
    train(config, path, tmp_path / "run", resume=True, quiet=True)
    stored.write_text(json.dumps(written | {"unknown": 1}))
    with pytest.raises(ConfigError, match="another recipe"):
        train(config, path, tmp_path / "run", resume=True, quiet=True)


@pytest.mark.slow
def test_a_run_may_start_from_the_weights_of_another(recipe, tmp_path):
    path = recipe()
    config = load_config(path, ["run.tokens=6400"])
    first = train(config, path, tmp_path / "first", resume=False, quiet=True)
    more = [f"run.start_from={tmp_path}/first", f"data.tokenizer={tmp_path}/first/tokenizer.model"]
    further = load_config(path, [*more, "run.tokens=64", "optimizer.learning_rate=1e-9"])
    again = train(further, path, tmp_path / "second", resume=False, quiet=True)
    assert again["valid_nll"] == pytest.approx(first["valid_nll"], rel=1e-4)
    with pytest.raises(ConfigError, match=r"run\.start_from"):
        train(
            load_config(path, [f"run.start_from={tmp_path}/nothing"]),
            path,
            tmp_path / "third",
            resume=False,
            quiet=True,
        )


@pytest.mark.slow
@pytest.mark.parametrize(("family", "fields"), [("egru", LAYERS), ("spikegpt", DRIVEN)])
def test_the_penalty_quiets_a_layer(recipe, tmp_path, family, fields):
    rates = []
    for penalty in (0.0, 0.05):
        path = recipe(family, fields=fields)
        more = [f"activity.penalty={penalty}", "activity.target_rate=0.0", "run.tokens=6400"]
        result = train(load_config(path, more), path, tmp_path / str(penalty), False, quiet=True)
        rates.append(sum(result["valid_firing_rates"]))
    assert rates[1] < 0.8 * rates[0]


def test_evaluation_in_chunks_equals_one_pass(recipe, tmp_path):
    path = recipe()
    trainer = Trainer(load_config(path), path, tmp_path / "run", resume=False)
    stream = trainer.valid_stream[:150]
    whole = evaluate(trainer.model, stream, 500, lanes=1, steps=1000)
    parts = evaluate(trainer.model, stream, 500, lanes=1, steps=7)
    assert whole["tokens"] == parts["tokens"] == 149
    assert whole["nll"] == pytest.approx(parts["nll"], rel=1e-5)
    assert whole["firing_rates"] == pytest.approx(parts["firing_rates"], rel=1e-3)
