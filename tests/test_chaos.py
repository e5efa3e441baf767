"""tools/chaos.py: writers are killed, a server is worn out, and what is lost is counted."""

import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[1] / "tools" / "chaos.py"
NEEDS = {"writes": "numpy", "checkpoints": "torch", "sessions": "lmdb"}


def chaos(*arguments):
    command = [sys.executable, CHAOS, *arguments, "--seed", "1"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.slow
@pytest.mark.parametrize("what", NEEDS)
def test_killed_writers_lose_nothing(tmp_path, what):
    pytest.importorskip(NEEDS[what])
    done = chaos(what, "--count", "5", "--folder", tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"| kill -9, {what} |" in done.stdout
    assert "| writers started | 5 |" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_sessions_that_wait_for_no_disk_survive_a_kill_too(tmp_path):
    pytest.importorskip("lmdb")
    done = chaos("sessions", "--count", "5", "--unsynced", "--folder", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| of them lost | 0 |" in done.stdout


@pytest.mark.slow
def test_what_is_lost_is_said_and_decides_the_exit_code(tmp_path):
    """A writer that takes the package away before it writes the next one."""
    program = (
        "import os, runpy, shutil, sys, time\n"
        "from spiketrain.runtime import package\n"
        "whole, parent = package.write_package, os.getpid()\n"
        "def write(path, *content, force):\n"
        "    if os.getpid() != parent:\n"
        "        shutil.rmtree(path)\n"
        "        time.sleep(30)\n"
        "    return whole(path, *content, force=force)\n"
        "package.write_package = write\n"
        f"sys.argv = ['chaos.py', 'writes', '--count', '5', '--folder', {str(tmp_path)!r}]\n"
        f"runpy.run_path({str(CHAOS)!r}, run_name='__main__')\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 1, done.stdout
    assert "must be a package directory" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "row"),
    [
        ("cancels --count 9", "| of them cancelled by their clients | 9 |"),
        ("slow --count 4", "| of them left by clients that closed the connection | 2 |"),
        ("sigterm --count 5", "| of them ended as they should | 5 |"),
        ("endurance --requests 10 --tokens 1100 --most-percent 100", "| tokens | 1,320 |"),
    ],
)
def test_a_server_that_is_worn_out_serves_on(command, row):
    done = chaos(*command.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert row in done.stdout


@pytest.mark.slow
def test_memory_that_grows_beyond_the_limit_decides_the_exit_code():
    done = chaos(*["endurance", "--requests", "5", "--tokens", "20", "--most-percent", "-90"])
    assert done.returncode == 1
    assert "| grown beyond the limit (1: yes) | 1 |" in done.stdout
