"""A tiny Llama trained by the loop becomes a spiking model: every step measured."""

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.slow  # a teacher is trained before any of them

from corpus_text import corpus_text  # noqa: E402
from tiny_llama import TEACHER  # noqa: E402

from spiketrain.lm.families.spikingbrain import Exporter  # noqa: E402
from spiketrain.lm.shards import Held  # noqa: E402
from spiketrain.training.config import ConfigError, load_config  # noqa: E402
from spiketrain.training.conversion import Conversion  # noqa: E402
from spiketrain.training.loop import Trainer, train  # noqa: E402
from spiketrain.training.transformer_conversion import convert_transformer  # noqa: E402

DISTIL = """
name = "tiny-spiking"
[model]
family = "spikingbrain"
[data]
train = "tales.txt"
valid = "tales.txt"
vocab_size = 300
[optimizer]
learning_rate = 5e-3
warmup_tokens = 100
[distil]
teacher = ""
weight = 0.8
attention = 1.0
[run]
tokens = 4_000
batch = 4
steps = 32
threads = 1
precision = "float32"
evaluate_tokens = 200
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus, recipes and a trained teacher."""
    place = tmp_path_factory.mktemp("llama")
    (place / "tales.txt").write_text(corpus_text(8))
    (place / "teacher.toml").write_text(TEACHER)
    (place / "distil.toml").write_text(DISTIL)
    config = load_config(place / "teacher.toml")
    train(config, place / "teacher.toml", place / "teacher", resume=False, quiet=True)
    return place


def asked(folder, **fields):
    text = folder / "tales.txt"
    given = {"teacher": folder / "teacher", "calibration": text, "measure": text}
    return Conversion("transformer-to-spiking", **(given | fields), low=0.1, high=0.2)


def test_a_teacher_is_kept_as_transformers_reads_it(folder):
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder / "teacher" / "model").eval()
    config = load_config(folder / "teacher.toml")
    own = Trainer(config, folder / "teacher.toml", folder / "teacher", resume=True).model.eval()
    ids = torch.arange(30)[None] * 7 % 300
    with torch.no_grad():
        torch.testing.assert_close(own(ids).logits, theirs(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", ["hybrid", "linear", "linear-spread"])
def test_every_step_is_measured_and_distillation_helps(folder, tmp_path, variant):
    given = asked(folder, fine_tune=folder / "distil.toml", variant=variant)
    made = convert_transformer(given, 0.4, "int4", tmp_path / "steps", quiet=True)
    stages = {stage["stage"]: stage for stage in made.report["stages"]}
    assert list(stages) == [
        "teacher", "mapped", "distilled", "spiking", "sparse", "int4, rounded to nearest", "int4",
    ]  # fmt: skip
    bits = {name: stage["bits_per_byte"] for name, stage in stages.items()}
    assert bits["distilled"] < bits["mapped"]
    assert bits["teacher"] < bits["mapped"]
    assert bits["spiking"] == pytest.approx(bits["distilled"], rel=0.1)
    zeros = 1 - sum(stages["sparse"]["firing_rates"]) / 8
    assert zeros == pytest.approx(0.4, abs=0.05)
    config = made.model.config
    assert config.attn_layers == ([1] if variant == "hybrid" else [])
    assert (config.window_keys, made.report["context"]) == (4, 32)
    exporter = Exporter(config, Held(made.model.state_dict()), "int4", codes=made.codes)
    tensors = exporter.tensors("layers.0")
    scale = made.codes["layers.0.mlp.up_proj"]["scale"].numpy()
    assert (tensors["layers.0.mlp.up_proj.scale"] == scale).all()
    assert json.dumps(made.report)


def test_distillation_may_have_spikes_already(folder, tmp_path):
    given = asked(
        folder,
        fine_tune=folder / "distil.toml",
        overrides=("model.spikes=true", "model.spike_k=2.0", "optimizer.kind=muon"),
    )
    made = convert_transformer(given, None, "int8", tmp_path / "steps", quiet=True)
    stages = {stage["stage"]: stage for stage in made.report["stages"]}
    assert list(stages) == [
        "teacher", "mapped", "spiking", "distilled", "int8, rounded to nearest", "int8",
    ]  # fmt: skip
    assert not stages["mapped"]["firing_rates"]
    assert all(0 < rate < 1 for rate in stages["distilled"]["firing_rates"])
    assert stages["distilled"]["bits_per_byte"] < stages["spiking"]["bits_per_byte"]
    assert made.model.model.layers[0].mlp.spikes.k.item() == 2.0


def test_a_missing_text_is_told_before_anything_is_measured(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("SPIKETRAIN_DATA", raising=False)
    monkeypatch.setattr(
        "spiketrain.training.conversion.Text.measure", None
    )  # whoever comes so far fails
    given = asked(folder, fine_tune=folder / "distil.toml", overrides=('data.valid="nowhere.txt"',))
    with pytest.raises(ConfigError, match=r"nowhere\.txt not found in .*set SPIKETRAIN_DATA"):
        convert_transformer(given, None, "int4", tmp_path / "steps", quiet=True)


def test_matching_attention_needs_a_transformer_for_a_teacher(folder, tmp_path):
    (tmp_path / "tales.txt").write_text((folder / "tales.txt").read_text())
    (tmp_path / "gru.toml").write_text(
        TEACHER.split("[model]")[0]
        + '[model]\nfamily = "gru"\nembedding_size = 8\nhidden_size = 8\n'
        + "num_hidden_layers = 1\n[data]"
        + TEACHER.split("[data]")[1].replace("12_000", "256")
    )
    tokenizer = f"data.tokenizer={folder}/teacher/tokenizer.model"
    config = load_config(tmp_path / "gru.toml", [tokenizer])
    train(config, tmp_path / "gru.toml", tmp_path / "gru", resume=False, quiet=True)
    recipe = tmp_path / "distil.toml"
    recipe.write_text(DISTIL)
    config = load_config(recipe, [tokenizer, f"distil.teacher={tmp_path / 'gru'}"])
    with pytest.raises(ConfigError, match=r"distil.attention must be 0 unless"):
        Trainer(config, recipe, tmp_path / "run", resume=False)


def test_an_unknown_variant_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"variant of transformer-to-spiking must be one of"):
        convert_transformer(asked(folder, variant="mixed"), None, "int8", tmp_path)
