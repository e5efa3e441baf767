"""The Makefile says plainly what a machine lacks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PREFLIGHT = Path(__file__).parent.parent / "tools" / "preflight.sh"


def preflight(path: Path, python: str = "python3", **environment: str):
    """Run the check with the commands of directory `path` alone."""
    return subprocess.run(
        [shutil.which("sh"), str(PREFLIGHT), python],
        env={"PATH": str(path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def command(path: Path, name: str, script: str) -> None:
    file = path / name
    file.write_text(f"#!{shutil.which('sh')}\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def machine(tmp_path):
    """A directory of commands: a whole Python and a compiler."""
    command(tmp_path, "python3", "exit 0")
    command(tmp_path, "cc", "exit 0")
    return tmp_path


def test_a_whole_machine_passes_in_silence(machine):
    done = preflight(machine)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_this_machine_passes():
    done = preflight(Path(os.environ["PATH"]), sys.executable)
    assert done.returncode == 0, done.stderr


def test_a_missing_compiler_is_named_with_its_package(machine):
    (machine / "cc").unlink()
    done = preflight(machine)
    assert done.returncode == 1
    assert "missing: a C compiler" in done.stderr
    assert "sudo apt install build-essential" in done.stderr


def test_a_compiler_that_cc_names_must_exist(machine):
    done = preflight(machine, CC="no-such-cc -O3")
    assert done.returncode == 1
    assert "no-such-cc" in done.stderr


@pytest.mark.parametrize(
    ("check", "missing", "package"),
    [("Python.h", "Python.h", "python3-dev"), ("ensurepip", "venv module", "python3-venv")],
)
def test_a_missing_part_of_python_is_named_with_its_package(machine, check, missing, package):
    command(machine, "python3", f'case "$2" in *{check}*) exit 1;; esac; exit 0')
    done = preflight(machine)
    assert done.returncode == 1
    assert missing in done.stderr
    assert f"sudo apt install {package}" in done.stderr


def test_everything_missing_is_told_at_once(tmp_path):
    done = preflight(tmp_path)
    assert done.returncode == 1
    assert "sudo apt install python3 python3-venv python3-dev build-essential" in done.stderr


def test_an_old_python_is_refused_with_its_version(machine):
    command(machine, "python3", 'case "$1" in -V) echo Python 3.8.2; exit 0;; esac; exit 1')
    done = preflight(machine)
    assert done.returncode == 1
    assert "'python3' is Python 3.8.2" in done.stderr
