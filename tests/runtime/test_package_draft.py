"""Packages written file by file, cut off and gone on with."""

import errno
import json
import os

import numpy as np
import pytest
from small_files import small_files
from tiny_spikegpt import tiny_spikegpt_package

from spiketrain.runtime.errors import PackageError
from spiketrain.runtime.package import check_config, read_package
from spiketrain.runtime.package_draft import IDENTITY_FILE, PackageDraft

IDENTITY = {"source": "a", "weights": "int8"}


@pytest.fixture
def whole(tmp_path):
    return read_package(tiny_spikegpt_package(tmp_path / "whole"))


def parts(package, count=3):
    """Tensors of a package in several files."""
    names = sorted(package.tensors)
    return {
        f"model-{i}.safetensors": {name: package.tensors[name] for name in names[i::count]}
        for i in range(count)
    }


def config(package):
    found = json.loads(json.dumps(package.config))
    del found["spiketrain"]["fingerprint"]
    return found


def test_a_package_of_several_files_is_the_one_of_one_file(whole, tmp_path):
    draft = PackageDraft(tmp_path / "target", IDENTITY)
    for file, tensors in parts(whole).items():
        draft.write(file, tensors)
    fingerprint = draft.finish(config(whole), list(parts(whole)), {"note.txt": b"x"})
    assert fingerprint == whole.fingerprint
    again = read_package(tmp_path / "target")
    assert again.fingerprint == whole.fingerprint
    assert all(np.array_equal(again.tensors[n], x) for n, x in whole.tensors.items())
    assert sorted(p.name for p in (tmp_path / "target").iterdir()) == sorted(
        [*parts(whole), "config.json", "model.safetensors.index.json", "note.txt"]
    )
    assert not draft.folder.exists()


def test_an_attempt_that_was_cut_off_goes_on_with_what_is_whole(whole, tmp_path):
    first = PackageDraft(tmp_path / "target", IDENTITY)
    files = parts(whole)
    names = list(files)
    first.write(names[0], files[names[0]])
    (first.folder / f"{names[1]}.partial").write_bytes(b"cut off")
    del first  # as the end of its process does, so that others may write
    with pytest.raises(PackageError, match="--resume goes on with it"):
        PackageDraft(tmp_path / "target", IDENTITY)
    with pytest.raises(PackageError, match=r"weights must be as in the attempt .* 'int8', got 'x'"):
        PackageDraft(tmp_path / "target", IDENTITY | {"weights": "x"}, resume=True)
    second = PackageDraft(tmp_path / "target", IDENTITY, resume=True)
    assert [second.has(name) for name in names] == [True, False, False]
    assert set(second.read(names[0])) == set(files[names[0]])
    for name in names[1:]:
        second.write(name, files[name])
    (second.folder / "config.json").write_text("left over of an attempt to finish")
    assert second.finish(config(whole), names) == whole.fingerprint


def test_a_draft_has_one_writer_at_a_time(whole, tmp_path):
    first = PackageDraft(tmp_path / "target", IDENTITY)
    with pytest.raises(PackageError, match="must have one writer, another is at work"):
        PackageDraft(tmp_path / "target", IDENTITY, resume=True)
    del first
    PackageDraft(tmp_path / "target", IDENTITY, resume=True)


def test_what_a_killed_writer_did_not_remove_is_no_part_of_a_new_draft(whole, tmp_path):
    left = tmp_path / ".target.partial"  # the package that was replaced, half removed
    left.mkdir()
    (left / "model-0.safetensors").write_bytes(b"of another package")
    draft = PackageDraft(tmp_path / "target", IDENTITY)
    assert not draft.has("model-0.safetensors")


def test_a_file_that_does_not_fit_the_disk_leaves_no_part_of_it(whole, tmp_path, monkeypatch):
    draft = PackageDraft(tmp_path / "target", IDENTITY)
    before = sorted(draft.folder.iterdir())

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PackageError, match="No space left"):
        draft.write("model-0.safetensors", parts(whole)["model-0.safetensors"])
    assert sorted(draft.folder.iterdir()) == before


def test_a_draft_that_cannot_begin_leaves_nothing(tmp_path):
    with small_files(0), pytest.raises(PackageError, match="must be writable, got File too large"):
        PackageDraft(tmp_path / "target", IDENTITY)
    assert os.listdir(tmp_path) == []


def test_a_lacking_tensor_is_named_and_the_draft_stays(whole, tmp_path):
    draft = PackageDraft(tmp_path / "target", IDENTITY)
    files = parts(whole)
    names = list(files)
    for name in names[:2]:
        draft.write(name, files[name])
    lacking = sorted(files[names[2]])[0]
    with pytest.raises(PackageError, match=f"tensor '{lacking}' is missing"):
        draft.finish(config(whole), names[:2])
    assert (draft.folder / IDENTITY_FILE).is_file()
    assert not (tmp_path / "target").exists()


def test_an_existing_target_is_refused_before_any_work(whole, tmp_path):
    with pytest.raises(PackageError, match="must not exist yet"):
        PackageDraft(whole.path, IDENTITY)
    draft = PackageDraft(whole.path, IDENTITY, force=True)
    for file, tensors in parts(whole).items():
        draft.write(file, tensors)
    assert draft.finish(config(whole), list(parts(whole))) == whole.fingerprint
    assert (whole.path / "model-0.safetensors").is_file()


def test_a_config_is_checked_without_tensors(whole):
    check_config("here", config(whole))
    wrong = config(whole) | {"hidden_size": -1}
    with pytest.raises(PackageError, match="here: hidden_size must be"):
        check_config("here", wrong)
