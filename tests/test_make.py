"""What `make` shows and runs."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

if shutil.which("make") is None:
    pytest.skip("make is not installed", allow_module_level=True)


def make(*arguments):
    command = ["make", "--no-print-directory", *arguments]
    # A make around this test has variables of its own in the environment, such as PYTEST_FLAGS.
    path = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=ROOT, env=path, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_help_names_every_target_with_its_time():
    text = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"\.PHONY: ((?:.*\\\n)*.*)", text)[1].replace("\\\n", "").split())
    shown = dict(re.findall(r"^make ([\w-]+) +([\d.]+ (?:s|min)) +\S", make("help"), re.MULTILINE))
    details = {"help", "distclean", "lint-imports", "test-release", "test-checked"}
    details |= {"sanitize-address", "sanitize-thread"}
    assert shown.keys() == targets - details


@pytest.mark.parametrize("target", ["test", "quick", "test-checked"])
def test_tests_run_in_parallel(target):
    (line,) = (one for one in make("--dry-run", target).splitlines() if "-m pytest" in one)
    assert "--numprocesses logical" in line
    assert "--dist loadgroup" in line
    assert ('"not slow"' in line) == (target == "quick")


def test_a_check_measures_coverage_on_the_release_build_alone():
    lines = [one for one in make("--dry-run", "check").splitlines() if "-m pytest" in one]
    assert ["--cov" in one for one in lines] == [False, True]
    assert "--cov" not in make("--dry-run", "test")


def test_torch_is_installed_at_the_release_that_the_makefile_pins():
    printed = make("--dry-run", "--always-make", ".venv/.test")
    assert "tools/install_torch.py 2.13.0" in printed
