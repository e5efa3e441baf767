"""A Hugging Face directory as the teacher of a spiking model: with its own tokenizer, distilled."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from command_in_process import call  # noqa: E402
from corpus_text import corpus_text  # noqa: E402
from tiny_qwen import END, PADDED_VOCAB_SIZE, write_tiny_qwen  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812 - its usual name

from spiketrain import runtime  # noqa: E402
from spiketrain.lm.conversion.transformer import spikingbrain_from_transformer  # noqa: E402
from spiketrain.runtime.errors import SpiketrainError  # noqa: E402
from spiketrain.training.config import ConfigError, load_config  # noqa: E402
from spiketrain.training.conversion import Conversion  # noqa: E402
from spiketrain.training.encoder import folder_encoder  # noqa: E402
from spiketrain.training.loop import Trainer, train  # noqa: E402
from spiketrain.training.teachers import directory_model  # noqa: E402
from spiketrain.training.transformer_conversion import convert_transformer  # noqa: E402

DISTIL = """
name = "tiny-qwen-spiking"
[model]
family = "spikingbrain"
[data]
train = "tales.txt"
valid = "tales.txt"
[optimizer]
learning_rate = 5e-3
warmup_tokens = 100
[distil]
teacher = ""
weight = 1.0
attention = 1.0
[run]
tokens = 20_000
batch = 4
steps = 64
threads = 1
precision = "float32"
evaluate_tokens = 200
"""
SCRATCH = """
name = "tiny-llama"
[model]
family = "llama"
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
intermediate_size = 16
context = 32
[data]
train = "tales.txt"
valid = "tales.txt"
tokenizer = "qwen/tokenizer.json"
end_of_text = 0
[run]
tokens = 600
batch = 4
steps = 32
threads = 1
precision = "float32"
evaluate_tokens = 200
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus, recipes and the directory of a tiny Qwen2."""
    place = tmp_path_factory.mktemp("qwen")
    text = corpus_text(12)
    (place / "tales.txt").write_text(text)
    (place / "distil.toml").write_text(DISTIL)
    (place / "scratch.toml").write_text(SCRATCH)
    write_tiny_qwen(place / "qwen", text.replace("<|endoftext|>", ""))
    return place


def asked(folder, **fields):
    text = folder / "tales.txt"
    given = {"teacher": folder / "qwen", "calibration": text, "measure": text}
    return Conversion("transformer-to-spiking", **(given | fields), low=0.1, high=0.2)


def test_a_directory_converts_without_distillation(folder, tmp_path):
    made = convert_transformer(asked(folder), None, "float32", tmp_path / "steps")
    assert [stage["stage"] for stage in made.report["stages"]] == ["teacher", "mapped", "spiking"]
    assert made.report["context"] == 512
    assert not made.codes


@pytest.mark.slow
def test_a_student_of_a_directory_comes_nearer_to_its_teacher(folder, tmp_path):
    given = asked(folder, fine_tune=folder / "distil.toml")
    made = convert_transformer(given, None, "float32", tmp_path / "steps", quiet=True)
    stages = [stage["stage"] for stage in made.report["stages"]]
    assert stages == ["teacher", "mapped", "distilled", "spiking"]
    assert made.report["context"] == 64  # what the recipe trains on at once
    assert made.model.config.vocab_size == PADDED_VOCAB_SIZE
    teacher = directory_model(folder / "qwen", 64)
    mapped = spikingbrain_from_transformer(teacher)
    ids = folder_encoder(folder / "qwen").stream(folder / "tales.txt")[:512].astype("int64")
    ids = torch.from_numpy(ids).view(8, 64)
    assert divergence(teacher, made.model, ids) < 0.5 * divergence(teacher, mapped, ids)


@torch.no_grad()
def divergence(teacher, student, ids):
    """Sum of KL(teacher, student) over ids (B, T)."""
    wanted, found = (torch.log_softmax(model(ids).logits, -1) for model in (teacher, student))
    return F.kl_div(found, wanted, reduction="sum", log_target=True).item()


def test_a_package_of_a_directory_ends_texts_as_its_source_does(folder, tmp_path, monkeypatch):
    package, text = tmp_path / "package", folder / "tales.txt"
    arguments = ("--recipe", "transformer-to-spiking", "--calib", text, "--weights", "int8")
    assert call(monkeypatch, "convert", folder / "qwen", package, *arguments) == 0
    model = runtime.load_model(package)
    assert model.eos_token_ids == (model.tokenizer.encode(END)[0],) == (0,)
    assert model.vocab_size == PADDED_VOCAB_SIZE


def test_a_recipe_may_name_a_tokenizer_of_json(folder, tmp_path):
    recipe, run = folder / "scratch.toml", tmp_path / "run"
    found = train(load_config(recipe), recipe, run, resume=False, quiet=True)
    assert (run / "tokenizer.json").read_bytes() == (folder / "qwen/tokenizer.json").read_bytes()
    assert found["parameters"] > 300 * 16
    resumed = train(load_config(recipe), recipe, run, resume=True, quiet=True)
    assert resumed["valid_nll"] == found["valid_nll"]
    made = convert_transformer(asked(folder, teacher=run), None, "float32", tmp_path / "steps")
    assert made.model.config.vocab_size == 300


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.tokenizer=distil.toml", r"data\.tokenizer: String should match"),
        ("data.end_of_text=300", "the end of a text must be a token below 300, got 300"),
        ("data.end_of_text=-1", r"data\.end_of_text: .* greater than or equal to 0"),
        ("model.vocab_size=299", "model.vocab_size must be at least the tokenizer's 300, got 299"),
        ("distil.teacher=nowhere", "nowhere"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(folder, tmp_path, override, message):
    recipe = folder / "scratch.toml"
    with pytest.raises(ConfigError, match=message):
        Trainer(load_config(recipe, [override]), recipe, tmp_path / "run", resume=False)


def test_a_tokenizer_of_json_without_an_end_is_refused(folder, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((folder / "qwen/tokenizer.json").read_bytes())
    (tmp_path / "config.json").write_text('{"eos_token_id": null}')
    with pytest.raises(ConfigError, match=r"eos_token_id must be a token$"):
        folder_encoder(tmp_path)
    for wrong in ('{"eos_token_id": "2"}', "[2]", '{"data": {"end_of_text": [-1]}}'):
        (tmp_path / "config.json").write_text(wrong)
        with pytest.raises(SpiketrainError, match=r"config\.json: "):
            folder_encoder(tmp_path)


def test_more_tokens_than_embeddings_are_refused(folder, tmp_path):
    for file in (folder / "qwen").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    last = tokenizer["added_tokens"][-1]
    tokenizer["added_tokens"] += [last | {"id": 300 + i, "content": f"<{i}>"} for i in range(30)]
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match="must have at most the model's 320 tokens, got 330"):
        convert_transformer(asked(folder, teacher=tmp_path), None, "float32", tmp_path / "steps")
