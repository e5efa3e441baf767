"""A writer that is killed, or fails, at any point leaves the old file or the new one."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from package_edits import make
from small_files import small_files

from spiketrain.runtime import durable_files, exchange
from spiketrain.runtime.draft_folder import draft_folder, tidy
from spiketrain.runtime.durable_files import new_file, new_folder, replace_file
from spiketrain.runtime.errors import PackageError, WriteError
from spiketrain.runtime.package import read_package, write_package

# Writes a package over another one; the process is killed at its n-th call to the file system.
WRITER = """
import os, signal, sys
from spiketrain.runtime import durable_files
from spiketrain.runtime.package import read_package, write_package

target, at, swap = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "swap"
package = read_package(sys.argv[4])
tensors = {name: array.copy() for name, array in package.tensors.items()}
if not swap:
    durable_files.exchange = lambda first, second: False
calls = 0

def kill(event, arguments):
    global calls
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "fcntl.flock"):
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
write_package(target, package.config, tensors, force=True)
"""


def write_until(target, at, swap, source):
    """Whether the writer was killed at its call `at`; False if it has no more calls."""
    command = [sys.executable, "-c", WRITER, str(target), str(at), swap, str(source)]
    code = subprocess.run(command, check=False, timeout=300).returncode
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.slow
@pytest.mark.parametrize("swap", ["swap", "renames"])
def test_a_writer_killed_at_any_point_leaves_a_whole_package(tmp_path, swap):
    target = make(tmp_path / "place" / "p", seed=1)
    source = make(tmp_path / "other", seed=2)
    whole = {read_package(target).fingerprint, read_package(source).fingerprint}
    at = 1
    while write_until(target, at, swap, source):
        assert read_package(target).fingerprint in whole
        make(target, seed=1, force=True)
        assert os.listdir(target.parent) == ["p"]
        at += 1
    assert at > 15
    assert read_package(target).fingerprint == read_package(source).fingerprint


def test_a_reader_puts_back_what_a_killed_writer_had_moved_aside(tmp_path):
    package = make(tmp_path / "p")
    fingerprint = read_package(package).fingerprint
    os.rename(package, tmp_path / ".p.0123456789abcdef.old")
    assert read_package(package).fingerprint == fingerprint
    assert os.listdir(tmp_path) == ["p"]


def test_a_package_that_was_moved_aside_is_not_written_over_without_force(tmp_path):
    package = make(tmp_path / "p")
    os.rename(package, tmp_path / ".p.0123456789abcdef.old")
    with pytest.raises(PackageError, match="must not exist yet"):
        make(package)
    assert read_package(package)


def test_the_next_write_removes_what_killed_writers_left(tmp_path):
    left = tmp_path / ".p.0123456789abcdef.tmp"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    make(tmp_path / "p")
    assert os.listdir(tmp_path) == ["p"]


@pytest.mark.parametrize("name", [".q.0123456789abcdef.tmp", ".p.tmp", ".p.x.0123456789abcdef.tmp"])
def test_what_is_of_others_stays(tmp_path, name):
    (tmp_path / name).mkdir()
    make(tmp_path / "p")
    assert sorted(os.listdir(tmp_path)) == sorted([name, "p"])


def test_the_draft_of_a_writer_that_is_alive_stays(tmp_path):
    with draft_folder(tmp_path / "p") as folder:
        (folder / "model.safetensors").write_bytes(b"half")
        make(tmp_path / "p")
        tidy(tmp_path / "p")
        assert (folder / "model.safetensors").is_file()
    assert os.listdir(tmp_path) == ["p"]


def test_a_swap_gives_each_name_what_the_other_had(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not exchange.exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("the file system of the tests cannot swap names")
    assert (tmp_path / "a" / "b").exists()
    assert (tmp_path / "b" / "a").exists()
    with pytest.raises(FileNotFoundError, match="absent"):
        exchange.exchange(tmp_path / "absent", tmp_path / "b")


def test_a_target_is_never_away_while_it_is_replaced(tmp_path, monkeypatch):
    package = make(tmp_path / "p", seed=1)
    if not exchange.exchange(package, make(tmp_path / "q")):
        pytest.skip("the file system of the tests cannot swap names")
    monkeypatch.setattr(os, "rename", lambda *names: pytest.fail(f"renamed {names}"))
    make(package, seed=2, force=True)


def test_a_replacement_that_does_not_reach_the_disk_is_taken_back(tmp_path, monkeypatch):
    package = make(tmp_path / "p", seed=1)
    before = read_package(package).fingerprint
    content = read_package(make(tmp_path / "q", seed=2))
    tensors = {name: np.array(array) for name, array in content.tensors.items()}
    synced = durable_files.sync_directory

    def fail(path):
        if path == package.parent:
            raise OSError(errno.EIO, "Input/output error")
        synced(path)

    monkeypatch.setattr(durable_files, "sync_directory", fail)
    with pytest.raises(PackageError, match="must be writable, got Input/output error"):
        write_package(package, content.config, tensors, force=True)
    assert read_package(package).fingerprint == before
    assert sorted(os.listdir(tmp_path)) == ["p", "q"]


@pytest.mark.parametrize("hidden", [False, True])
def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, hidden):
    target = tmp_path / "report.json"
    target.write_text("old")

    def write():
        with new_file(target) as stream:
            try:
                stream.write(b"x" * 10**6)
            except OSError:
                if hidden:
                    raise RuntimeError("a library that hides the reason") from None
                raise

    with (
        small_files(1000),
        pytest.raises(WriteError, match=r"report\.json: must be writable, got File too large"),
    ):
        write()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]


def test_an_error_that_is_none_of_the_system_stays_what_it_is(tmp_path):
    def write():
        with new_file(tmp_path / "f") as stream:
            stream.write(b"half")
            raise KeyError("x")

    with pytest.raises(KeyError):
        write()
    assert os.listdir(tmp_path) == []


def test_a_file_in_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(WriteError, match=r"absent/f: must be writable, got No such file"):
        replace_file(tmp_path / "absent" / "f", b"x")


def test_a_link_keeps_pointing_to_what_is_replaced(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_device_is_written_to_and_stays(tmp_path):
    replace_file(Path(os.devnull), b"x")
    assert not Path(os.devnull).is_file()


def test_a_folder_takes_the_place_of_another_as_a_whole(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    with new_folder(target) as folder:
        (folder / "new").touch()
        assert os.listdir(target) == ["old"]
    assert os.listdir(target) == ["new"]
    assert os.listdir(tmp_path) == ["model"]
