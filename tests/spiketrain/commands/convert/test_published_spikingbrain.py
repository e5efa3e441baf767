"""From a published SpikingBrain directory to a package, on the command line."""

import asyncio
import errno
import json
import os
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from byte_level import byte_level  # noqa: E402
from command_in_process import call  # noqa: E402

from spiketrain import runtime  # noqa: E402
from spiketrain.cli import main  # noqa: E402
from spiketrain.lm.checkpoint import UpstreamChoices, read_checkpoint  # noqa: E402
from spiketrain.runtime.chat_template_file import read_chat_template  # noqa: E402
from spiketrain.serving.client.client import Client  # noqa: E402
from spiketrain.serving.config import ServingConfig  # noqa: E402
from spiketrain.serving.engine.engine import Engine  # noqa: E402
from spiketrain.serving.request.chat import Chat, Message  # noqa: E402
from spiketrain.serving.request.chat_template import ChatTemplate  # noqa: E402
from spiketrain.serving.request.events import Delta  # noqa: E402
from spiketrain.serving.request.request import Request  # noqa: E402
from spiketrain.serving.rpc.server import Server  # noqa: E402

DATA = Path(__file__).parents[3] / "data" / "spikingbrain"
VOCABULARY = 190  # of the tokenizer, within the golden model's 199 tokens
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IDS = [int(x) for x in torch.arange(40) * 11 % 199]


def logits(package):
    model = runtime.load_model(package)
    return torch.from_numpy(model.forward(model.new_state(), IDS).copy())


@torch.no_grad()
def of_torch(name, **meaning):
    return (
        read_checkpoint(DATA / name, UpstreamChoices(**meaning))
        .model(torch.tensor([IDS]))
        .logits[0]
    )


def test_a_dry_run_says_what_would_be_written(tmp_path, monkeypatch, capsys):
    package = tmp_path / "package"
    assert call(monkeypatch, "convert", DATA / "w8_g32", package, "--dry-run") == 0
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
        (("--calib", "x"), 2, "--calib with --target-sparsity or --max-dial"),
        (("--calib", "x", "--target-sparsity", "0.5"), 2, "needs spike counts before matrices"),
        (
            ("--weights", "int4", "--max-dial", "2", "--calib", "x"),
            2,
            "--calib: needs a tokenizer to read it with",
        ),
        (("--max-dial", "2"), 2, "needs spike counts before matrices, got 2.0"),
        (("--window-keys", 1 << 30), 1, "window_keys must be a whole number in [1, 16777216]"),
        (("--file", "/nowhere/x"), 2, "must be a file, got /nowhere/x"),
        (("--target-sparsity", "0.98", "--calib", "x"), 2, "between 0 and 0.98, got 0.98"),
        (("--recipe", "transformer-to-spiking", "--calib", "x", "--resume"), 2, "published"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path, monkeypatch, capsys, arguments, code, message):
    package = tmp_path / "package"
    dry = () if "--recipe" in arguments else ("--dry-run",)
    assert call(monkeypatch, "convert", DATA / "fp", package, *arguments, *dry) == code
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_options_of_a_published_directory_are_refused_elsewhere(tmp_path, monkeypatch, capsys):
    source = DATA.parent / "spikegpt" / "v77_l3.pth"
    assert call(monkeypatch, "convert", source, tmp_path / "p", "--max-memory", "4G") == 2
    assert "needs a published SpikingBrain" in " ".join(capsys.readouterr().err.split())
    assert call(monkeypatch, "convert", source, tmp_path / "p", "--window-cache", "int8") == 2
    assert "is for SpikingBrain, got int8" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("name", "options", "meaning", "fidelity"),
    [
        ("fp", (), {}, "exact"),
        ("fp", ("--window-keys", 16), {"window_keys": 16}, "exact"),
        ("w8_g32", (), {}, "exact"),
        ("w8_g32", ("--down-proj", "spiked"), {"down_proj": "spiked"}, "exact"),
    ],
)
def test_a_published_directory_becomes_a_package_with_its_logits(
    tmp_path, monkeypatch, capsys, name, options, meaning, fidelity
):
    package = tmp_path / "package"
    arguments = ("convert", DATA / name, package, "--max-memory", "8G", *options)
    assert call(monkeypatch, *arguments) == 0
    assert "layers.3: 0." in capsys.readouterr().err
    off = (logits(package) - of_torch(name, **meaning)).abs().amax(1)
    assert (off < 1e-3).float().mean() >= 0.95  # a count next to a rounding tie may flip
    config = json.loads((package / "config.json").read_text())
    assert config["spiketrain"]["fidelity"] == fidelity
    assert len(list(package.glob("*.safetensors"))) == 6


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_integer_weights_read_spike_counts(tmp_path, monkeypatch, capsys, weights):
    package = tmp_path / "package"
    arguments = ("--weights", weights, "--down-proj", "spiked", "--window-cache", "int8")
    assert call(monkeypatch, "convert", DATA / "fp", package, *arguments) == 0
    assert "spike counts at k 3" in capsys.readouterr().err
    config = json.loads((package / "config.json").read_text())
    assert config["spiketrain"]["events"] == "counts"
    assert config["window_cache"] == "int8"
    assert torch.isfinite(logits(package)).all()


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_package_that_could_not_be_is_refused_before_any_work(tmp_path, monkeypatch, capsys, dry):
    arguments = ("convert", DATA / "w8_g32", tmp_path / "package", "--window-cache", "float32")
    assert call(monkeypatch, *arguments, *dry) == 1
    assert "window_cache must be" in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("generation_config.json", '{"eos_token_id": 199}', "must be a token id in [0, 199)"),
        ("tokenizer.json", '{"model": {}}', "must be a Hugging Face tokenizer"),
        ("tokenizer.json", None, "must have at most the model's 199 tokens, has 256"),
        ("tokenizer.model", "junk", "must be a SentencePiece model"),
    ],
)
def test_a_file_that_no_package_may_have_is_refused_before_any_work(
    tmp_path, monkeypatch, capsys, name, content, message
):
    source = tmp_path / "source"
    shutil.copytree(DATA / "fp", source)
    if name.startswith("generation"):
        (source / "tokenizer.json").write_text(byte_level(VOCABULARY))
    (source / name).write_text(byte_level() if content is None else content)
    assert call(monkeypatch, "convert", source, tmp_path / "package") == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_full_disk_is_said_with_the_file_and_the_conversion_goes_on(
    tmp_path, monkeypatch, capsys
):
    import spiketrain.runtime.tensor_file as tensor_file

    synced = os.fsync

    def full(descriptor):
        if "safetensors" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(descriptor)

    package = tmp_path / "package"
    with monkeypatch.context() as patched:
        patched.setattr(tensor_file.os, "fsync", full)
        assert call(monkeypatch, "convert", DATA / "fp", package) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "model-00001-of-00006.safetensors.partial: must be writable" in said
    assert "No space left on device" in said
    assert [path.name for path in (tmp_path / ".package.partial").iterdir()] == ["draft.json"]
    assert call(monkeypatch, "convert", DATA / "fp", package, "--resume") == 0
    assert torch.isfinite(logits(package)).all()


def test_a_conversion_that_was_killed_goes_on(tmp_path, monkeypatch, capsys):
    import spiketrain.lm.families.spikingbrain.export as export

    package, made = tmp_path / "package", []
    whole = export.Exporter.tensors

    def cut_off(self, part):
        made.append(part)
        if len(made) == 4:
            raise KeyboardInterrupt
        return whole(self, part)

    monkeypatch.setattr(export.Exporter, "tensors", cut_off)
    arguments = ("convert", DATA / "w8_g32", package, "--down-proj", "spiked")
    monkeypatch.setattr("sys.argv", ["spiketrain", *map(str, arguments)])
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        main()
    assert not package.exists()
    assert call(monkeypatch, *arguments) == 1
    assert "--resume goes on with it" in " ".join(capsys.readouterr().err.split())
    assert call(monkeypatch, *arguments, "--weights", "int4", "--resume") == 1
    assert "weights must be as in the attempt" in " ".join(capsys.readouterr().err.split())
    made.clear()
    monkeypatch.setattr(
        export.Exporter, "tensors", lambda self, part: made.append(part) or whole(self, part)
    )
    assert call(monkeypatch, *arguments, "--resume") == 0
    assert made == ["layers.2", "layers.3", "head"]
    assert "layers.1: there already" in capsys.readouterr().err
    off = (logits(package) - of_torch("w8_g32", down_proj="spiked")).abs().amax(1)
    assert (off < 1e-3).float().mean() >= 0.95
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_tokenizer_chat_template_and_end_come_along(tmp_path, monkeypatch, capsys):
    source = tmp_path / "source"
    shutil.copytree(DATA / "fp", source)
    (source / "tokenizer.json").write_text(byte_level(VOCABULARY))
    (source / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (source / "tokenizer_config.json").write_text("{}")
    package = tmp_path / "package"
    assert call(monkeypatch, "convert", source, package) == 0
    model = runtime.load_model(package)
    assert model.tokenizer.decode(model.tokenizer.encode("hen")) == "hen"
    assert (package / "chat_template.jinja").read_text() == "{{ messages[0].content }}"
    assert model.eos_token_ids == (0,)


def test_a_converted_chat_model_streams_answers_to_messages(tmp_path, monkeypatch, capsys):
    source = tmp_path / "source"
    shutil.copytree(DATA / "w8_g32", source)
    (source / "tokenizer.json").write_text(byte_level(VOCABULARY))
    (source / "chat_template.jinja").write_text(CHATML)
    package = tmp_path / "package"
    assert call(monkeypatch, "convert", source, package, "--down-proj", "spiked") == 0
    messages = Chat([Message("system", "Be brief."), Message("user", "a hen?")])
    prompt = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na hen?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    rendered, told, plain = asyncio.run(over_grpc(package, messages, prompt))
    assert rendered == prompt
    assert told == plain != ""


async def over_grpc(package, messages, prompt):
    """What a server of this package makes of messages, and answers to them and to the prompt."""
    template = ChatTemplate(*read_chat_template(package, None))
    engine = Engine(runtime.load_model(package), ServingConfig(port=0))
    server = Server(engine, "converted", template)
    port = await server.start()

    def call():
        with Client(f"127.0.0.1:{port}") as client:
            asked = [Request(x, seed=3, max_new_tokens=20) for x in (messages, prompt)]
            answers = [list(client.generate_stream(request)) for request in asked]
            texts = ["".join(e.text for e in a if isinstance(e, Delta)) for a in answers]
            return client.render_chat(messages), *texts

    try:
        return await asyncio.to_thread(call)
    finally:
        await server.stop(0.0)


@pytest.mark.slow
def test_dead_zones_are_set_on_a_text_and_reported(tmp_path, monkeypatch, capsys):
    source = tmp_path / "source"
    shutil.copytree(DATA / "w8_g32", source)
    (source / "tokenizer.json").write_text(byte_level(VOCABULARY))
    (tmp_path / "text.txt").write_text("The hen and the fox saw the moon in the well. " * 20)
    package = tmp_path / "package"
    arguments = ("--target-sparsity", "0.5", "--calib", tmp_path / "text.txt", "--max-dial", "3")
    assert call(monkeypatch, "convert", source, package, *arguments, "--down-proj", "spiked") == 0
    assert "% of inputs are 0" in " ".join(capsys.readouterr().err.split())
    report = json.loads((package / "report.json").read_text())
    assert report["sparsity"] == pytest.approx(0.5, abs=0.03)
    assert len(report["places"]) == 16
    config = json.loads((package / "config.json").read_text())
    assert config["spiketrain"]["fidelity"] == "approximate"
    assert torch.isfinite(logits(package)).all()
    first, *rest = report["dials"]
    assert (first["dial"], rest[-1]["dial"]) == (1.0, pytest.approx(3.0))
    assert first["zeros"] == pytest.approx(report["sparsity"])
    assert first["nats"] == pytest.approx(report["nats_after"])
    zeros = [row["zeros"] for row in report["dials"]]
    assert sorted(set(zeros)) == zeros
    assert config["spiketrain"]["max_dial"] == runtime.load_model(package).max_dial == 3.0


def test_a_range_alone_needs_no_text_and_a_text_alone_only_measures(tmp_path, monkeypatch):
    source = tmp_path / "source"
    shutil.copytree(DATA / "w8_g32", source)
    (source / "tokenizer.json").write_text(byte_level(VOCABULARY))
    (tmp_path / "text.txt").write_text("The hen and the fox saw the moon in the well. " * 20)
    plain, measured = tmp_path / "plain", tmp_path / "measured"
    assert call(monkeypatch, "convert", source, plain, "--max-dial", "2") == 0
    calib = ("--calib", tmp_path / "text.txt")
    assert call(monkeypatch, "convert", source, measured, "--max-dial", "2", *calib) == 0
    found = [json.loads((path / "config.json").read_text()) for path in (plain, measured)]
    assert len({config["spiketrain"]["fingerprint"] for config in found}) == 1
    assert found[0]["spiketrain"]["fidelity"] != "approximate"
    assert not (plain / "report.json").exists()
    assert len(json.loads((measured / "report.json").read_text())["dials"]) == 5


def test_a_model_that_a_text_is_read_with_has_to_fit_the_memory(tmp_path, monkeypatch, capsys):
    source = tmp_path / "source"
    shutil.copytree(DATA / "w8_g32", source)
    (source / "tokenizer.json").write_text(byte_level(VOCABULARY))
    (tmp_path / "text.txt").write_text("short")
    arguments = ("--calib", tmp_path / "text.txt", "--max-dial", "2", "--max-memory", "64M")
    assert call(monkeypatch, "convert", source, tmp_path / "package", *arguments) == 1
    assert "M to read --calib with the model, got 64M" in capsys.readouterr().err
    arguments = (*arguments[:-1], "16G")
    assert call(monkeypatch, "convert", source, tmp_path / "package", *arguments) == 1
    assert "text.txt: must have at least 128 tokens, got 6" in capsys.readouterr().err
