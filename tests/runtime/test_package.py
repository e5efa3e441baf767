"""A package that is written reads back, and a write that fails changes nothing."""

import os
import shutil

import numpy as np
import pytest
import tiny
from package_edits import make

from spiketrain.runtime import durable_files
from spiketrain.runtime.errors import PackageError
from spiketrain.runtime.package import compute_fingerprint, read_package, write_package
from spiketrain.runtime.tensor_file import map_tensors


@pytest.mark.parametrize("weights", ["int8", "float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("projection", [True, False])
def test_a_package_reads_back_as_written(tmp_path, weights, tied, projection):
    config = tiny.egru_config(weights, tied, projection, 9, (5, 4), 4)
    tensors = tiny.egru_tensors(config)
    stated = write_package(tmp_path / "p", config, tensors, {"README.md": b"text"})
    package = read_package(tmp_path / "p")
    assert package.fingerprint == stated == compute_fingerprint(package.config, tensors)
    assert package.family == "egru"
    assert set(package.tensors) == set(tensors)
    for name, array in package.tensors.items():
        np.testing.assert_array_equal(array, tensors[name], strict=True)
    assert (tmp_path / "p" / "README.md").read_bytes() == b"text"


def test_tensors_are_aligned_read_only_views(package):
    for array in read_package(package).tensors.values():
        assert not array.flags.writeable
        assert not array.flags.owndata
        assert array.flags.aligned
        assert array.flags.c_contiguous


def test_the_safetensors_library_reads_our_file(package):
    library = pytest.importorskip("safetensors.numpy")
    theirs = library.load_file(package / "model.safetensors")
    ours = read_package(package).tensors
    assert set(theirs) == set(ours)
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], strict=True)


def test_we_read_the_safetensors_librarys_file(package):
    library = pytest.importorskip("safetensors.numpy")
    tensors = {name: np.array(array) for name, array in read_package(package).tensors.items()}
    library.save_file(tensors, package / "model.safetensors", {"format": "np"})
    assert set(read_package(package).tensors) == set(tensors)


def test_the_fingerprint_covers_results_but_not_provenance(content):
    config, tensors = content
    first = compute_fingerprint(config, tensors)
    config["spiketrain"]["provenance"]["source"] = "elsewhere"
    assert compute_fingerprint(config, tensors) == first
    assert compute_fingerprint({**config, "zoneout": 0.5}, tensors) != first
    changed = dict(tensors)
    changed["head.bias"] = np.nextafter(tensors["head.bias"], np.float32(np.inf))
    assert compute_fingerprint(config, changed) != first


def test_writing_twice_gives_the_same_bytes(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    for file in sorted(first.iterdir()):
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_an_existing_target_is_refused_without_force(package, content):
    before = (package / "config.json").read_bytes()
    with pytest.raises(PackageError, match=r"must not exist yet \(--force"):
        write_package(package, *content)
    assert (package / "config.json").read_bytes() == before


def test_force_replaces_the_whole_package(package, content):
    (package / "old.txt").write_text("left over")
    write_package(package, *content, force=True)
    assert sorted(os.listdir(package)) == ["config.json", "model.safetensors"]
    assert os.listdir(package.parent) == [package.name]


def test_force_replaces_nothing_but_a_package(tmp_path, package, content):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    (tmp_path / "link").symlink_to(package)
    (tmp_path / "file").write_text("")
    for name in ("home", "link", "file"):
        with pytest.raises(PackageError, match="must be a package to be replaced"):
            write_package(tmp_path / name, *content, force=True)
    assert (tmp_path / "home" / "letter.txt").exists()


def test_force_does_not_replace_a_checkpoint(tmp_path, content):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text('{"model_type": "egru"}')
    with pytest.raises(PackageError, match="has no spiketrain object"):
        write_package(checkpoint, *content, force=True)
    assert [file.name for file in checkpoint.iterdir()] == ["config.json"]


def test_an_interrupt_between_the_renames_leaves_the_old_package(
    tmp_path, package, content, monkeypatch
):
    monkeypatch.setattr(durable_files, "exchange", lambda first, second: False)
    before = {path.name: path.read_bytes() for path in package.iterdir()}
    rename = os.rename

    def interrupted(source, target):
        if str(source).endswith(".tmp"):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_package(package, *content, force=True)
    assert {path.name: path.read_bytes() for path in package.iterdir()} == before
    assert [path.name for path in package.parent.iterdir()] == [package.name]


@pytest.mark.parametrize("broken", ["fsync", "rename"])
@pytest.mark.parametrize("force", [False, True])
def test_a_failed_write_leaves_everything_as_it_was(tmp_path, content, monkeypatch, broken, force):
    if force:
        monkeypatch.setattr(durable_files, "exchange", lambda first, second: False)
        make(tmp_path / "p", seed=5)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    real, calls = getattr(os, broken), []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == (2 if force or broken == "fsync" else 1):
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises((OSError, PackageError), match="No space left"):
        write_package(tmp_path / "p", *content, force=force)
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before
    assert os.listdir(tmp_path) == (["p"] if force else [])


def test_a_missing_file_to_copy_leaves_nothing(tmp_path, content):
    with pytest.raises(PackageError, match=r"absent\.model: must be readable"):
        write_package(tmp_path / "p", *content, {"tokenizer.model": tmp_path / "absent.model"})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a\0b", "config.json", "x" * 300])
def test_further_files_have_plain_names(tmp_path, content, name):
    with pytest.raises(PackageError):
        write_package(tmp_path / "p", *content, {name: b""})
    assert os.listdir(tmp_path) == []


def test_bad_tensors_are_refused_before_anything_is_written(tmp_path, content):
    config, tensors = content
    tensors["head.bias"] = tensors["head.bias"].astype(np.float64)
    with pytest.raises(PackageError, match=r"'head\.bias' is float64, config says float32"):
        write_package(tmp_path / "p", config, tensors)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("head.scale", 0.0, "finite and above 0, got 0.0"),
        ("head.scale", -1.0, "finite and above 0"),
        ("head.scale", np.inf, "finite and above 0"),
        ("layers.1.input.scale", np.nan, "finite and above 0"),
        ("layers.0.threshold", -1e-9, r"in \[0, 1\]"),
        ("layers.0.threshold", 1.01, r"in \[0, 1\]"),
        ("layers.0.threshold", np.nan, r"in \[0, 1\]"),
        ("layers.0.recurrent.bias", np.nan, "finite, got nan"),
        ("head.bias", -np.inf, "finite"),
        ("head.weight", -128, r"at \(1, 2\) must be in \[-127, 127\], got -128"),
    ],
)
def test_a_value_out_of_range_is_named(tmp_path, content, name, value, message):
    config, tensors = content
    tensors[name] = tensors[name].copy()
    tensors[name][(1, 2) if tensors[name].ndim == 2 else 1] = value
    with pytest.raises(PackageError, match=message) as caught:
        write_package(tmp_path / "p", config, tensors)
    assert repr(name) in str(caught.value)


def test_missing_unknown_and_misshapen_tensors_are_named(tmp_path, content):
    config, tensors = content
    bias = tensors.pop("head.bias")
    with pytest.raises(PackageError, match=r"'head\.bias' is missing"):
        write_package(tmp_path / "p", config, tensors)
    with pytest.raises(PackageError, match=r"'extra' is unknown"):
        write_package(tmp_path / "p", config, {**tensors, "head.bias": bias, "extra": bias})
    with pytest.raises(PackageError, match=r"is \(8,\), config says \(9,\)"):
        write_package(tmp_path / "p", config, {**tensors, "head.bias": bias[1:]})


def test_a_view_outlives_its_package(package):
    array = map_tensors(package.resolve(), "model.safetensors")["head.bias"]
    shutil.rmtree(package)
    assert np.isfinite(array).all()
