"""A run on a disk that takes no more: one error, no partial file, and it goes on where it was."""

import errno
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from command_in_process import call  # noqa: E402
from small_files import small_files  # noqa: E402

from spiketrain.runtime.errors import DataError, SpiketrainError, WriteError  # noqa: E402
from spiketrain.training.config import ConfigError, load_config  # noqa: E402
from spiketrain.training.data import encode_corpus  # noqa: E402
from spiketrain.training.loop import Trainer, train  # noqa: E402
from spiketrain.training.run_folder import load_tensors  # noqa: E402

RECIPE = """
name = "tiny"
[model]
family = "{family}"
embedding_size = 8
hidden_sizes = [8]
[data]
train = "tales.txt"
valid = "tales.txt"
vocab_size = 300
[run]
tokens = 384
batch = 4
steps = 16
threads = 1
precision = "float32"
evaluate_tokens = 100
checkpoint_minutes = 1e-9
"""


SENTENCE = "The hen and the quick brown fox went to the old well, and saw five zebras jump over it."


def recipe_in(folder, family="egru"):
    words = SENTENCE.split()
    tales = [" ".join(words[i:] + words[:i]) + f" {i}." for i in range(12)]
    (folder / "tales.txt").write_text("\n<|endoftext|>\n".join(tales * 3) + "\n<|endoftext|>\n")
    (folder / "recipe.toml").write_text(RECIPE.format(family=family))
    return folder / "recipe.toml"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a recipe and a run of it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = recipe_in(folder)
    train(load_config(recipe), recipe, folder / "whole", resume=False, quiet=True)
    return folder


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def partial_files(folder):
    return [path for path in folder.rglob("*") if path.suffix in (".tmp", ".partial", ".old")]


def results(folder):
    found = {name: (folder / name).read_bytes() for name in ("model/model.safetensors",)}
    return found | {"state": torch.load(folder / "checkpoint.pt")["at"]["chunk"]}


def go_on(runs, folder):
    recipe = runs / "recipe.toml"
    return train(load_config(recipe), recipe, folder, resume=True, quiet=True)


@pytest.mark.parametrize(
    ("file", "share"),
    [
        ("log.jsonl", 0.0),
        ("log.jsonl", 0.5),
        ("tokenizer.model", 0.5),
        ("checkpoint.pt", 0.999),
        ("curves.png", 0.5),
        ("model/model.safetensors", 0.5),
    ],
)
def test_a_run_without_room_for_one_of_its_files_ends_in_one_error(runs, tmp_path, file, share):
    whole = runs / "whole"
    limit = int(share * (whole / file).stat().st_size)
    larger = [path for path in contents(whole) if path.stat().st_size > limit]
    with small_files(limit), pytest.raises(WriteError, match="must be writable, got File too larg"):
        go_on(runs, tmp_path / "run")
    assert larger
    assert not partial_files(tmp_path)
    assert all(path.stat().st_size <= limit for path in contents(tmp_path / "run"))
    go_on(runs, tmp_path / "run")
    assert results(tmp_path / "run") == results(whole)


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(runs, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    step = Trainer._step

    def interrupted(self):
        if self.at.chunk == 3:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go_on(runs, folder)
    before = (folder / "checkpoint.pt").read_bytes()
    with small_files(len(before) - 1), pytest.raises(WriteError, match=r"checkpoint\.pt: must be"):
        go_on(runs, folder)
    assert (folder / "checkpoint.pt").read_bytes() == before
    go_on(runs, folder)
    assert results(folder) == results(runs / "whole")


def error_of(work):
    """What a user is told, "" if all went well."""
    try:
        work()
    except SpiketrainError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("mkdir", errno.EROFS),
        ("fsync", errno.EIO),
        ("replace", errno.EDQUOT),
        ("rename", errno.ENOSPC),
    ],
)
def test_whichever_call_fails_the_run_ends_in_one_error(runs, tmp_path, monkeypatch, name, number):
    """The n-th call of its kind fails, for each n, until a run needs no more of them."""
    real, at = getattr(os, name), 0
    said = None
    while said != "":
        at += 1
        calls = []

        def fail(*arguments, calls=calls, at=at, **options):
            calls.append(arguments)
            if len(calls) == at:
                raise OSError(number, os.strerror(number))
            return real(*arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(os, name, fail)
            said = error_of(lambda: go_on(runs, tmp_path / "run"))
        assert said == "" or os.strerror(number) in said
        assert not partial_files(tmp_path)
    assert at > 1
    assert results(tmp_path / "run") == results(runs / "whole")


def test_what_a_killed_writer_left_is_gone_when_the_run_goes_on(runs, tmp_path):
    left = tmp_path / "run" / ".checkpoint.pt.0123456789abcdef.tmp"
    left.mkdir(parents=True)
    (left / "checkpoint.pt").write_bytes(b"half")
    go_on(runs, tmp_path / "run")
    assert not partial_files(tmp_path)


def test_a_dense_run_without_room_for_its_model_says_so(tmp_path):
    recipe = recipe_in(tmp_path, "lstm")
    train(load_config(recipe), recipe, tmp_path / "run", resume=False, quiet=True)
    size = (tmp_path / "run" / "model.pt").stat().st_size
    with small_files(size - 1), pytest.raises(WriteError):
        train(load_config(recipe), recipe, tmp_path / "again", resume=False, quiet=True)
    assert not partial_files(tmp_path)


def test_the_command_says_it_in_one_line(runs, tmp_path, monkeypatch, capsys):
    recipe = recipe_in(tmp_path)
    with small_files(2000):
        assert call(monkeypatch, "train", recipe, "--out", tmp_path / "run", "--quiet") == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: ")
    assert "must be writable, got File too large" in said[-1]
    assert not any(line.startswith("Traceback") for line in said)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.vocab_size=100000", "data.vocab_size must fit the text"),
        ("run.batch=4096", "tokens are too few for batch 4096"),
    ],
)
def test_a_recipe_that_does_not_fit_its_text_is_one_line(
    tmp_path, monkeypatch, capsys, change, message
):
    recipe = recipe_in(tmp_path)
    assert call(monkeypatch, "train", recipe, "--out", tmp_path / "run", "--set", change) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert message in said[0]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04K\x01."])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"checkpoint\.pt: must be a readable checkpoint"):
        load_tensors(tmp_path / "checkpoint.pt", torch.device("cpu"))


def test_a_damaged_cache_is_made_anew(tmp_path):
    (tmp_path / "t.txt").write_text("abc")
    for damage in (lambda raw: raw[:-1], lambda raw: b"junk", lambda raw: b""):
        stream = encode_corpus(tmp_path / "t.txt", lambda t: [*t.encode()], 0, tmp_path, "key")
        assert stream.tolist() == [97, 98, 99, 0]
        (stored,) = tmp_path.glob("*.npy")
        np.testing.assert_array_equal(np.load(stored), stream)
        stored.write_bytes(damage(stored.read_bytes()))


def test_a_text_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.txt: must be readable, got No such file"):
        encode_corpus(tmp_path / "absent.txt", list, 0, None, "key")
