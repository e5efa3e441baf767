"""The scripts run, at sizes that say nothing about speed, and write what they measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LIBRARIES = {
    "egru_torch",
    "empty_server",
    "int8_peak",
    "kernel_calls",
    "kernel_plot",
    "packaged",
    "server",
}
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem not in LIBRARIES)

# The scripts that take seconds at such a size; the others need large models, torch or llama.cpp.
SMALL = {
    "load": ["PACKAGE", "--rounds", "1", "--streams", "1", "--tokens", "2", "--seconds", "0.01"],
    "loading": ["PACKAGE", "--rounds", "1"],
    "overload": ["--rounds", "1"],
    "stalls": ["--rounds", "1", "--only", "nothing"],
    "sessions": ["PACKAGE", "--rounds", "1", "--sessions", "3"],
}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny.tiny_egru_package(tmp_path_factory.mktemp("package") / "egru")


def run(script, *arguments):
    command = [sys.executable, str(BENCHMARKS / f"{script}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_says_how_it_is_used(script):
    if script == "training":
        pytest.importorskip("torch")
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert "--rounds" in done.stdout
    assert "--json FILE" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", SMALL)
def test_a_script_measures_and_writes_a_file(script, package, tmp_path):
    arguments = [str(package) if one == "PACKAGE" else one for one in SMALL[script]]
    done = run(script, *arguments, "--json", str(tmp_path / "figures.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "figures.json").read_text())
    assert f"{script}.py" in content["command"]
    assert content["sections"]
    for section in content["sections"]:
        assert section["title"] in done.stdout


@pytest.mark.slow
def test_two_builds_are_compared_in_turns(package, tmp_path):
    arguments = ["--old", sys.executable, "--packages", str(package.parent)]
    arguments += ["--families", "egru", "--threads", "1", "2", "--rounds", "2"]
    file = tmp_path / "figures.json"
    done = run("builds", *arguments, "--within", "1e9", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    sections = json.loads(file.read_text())["sections"]
    assert [section["title"] for section in sections] == [
        f"egru, {subject}, {threads} threads"
        for threads in (1, 2)
        for subject in ("decode", "prefill")
    ]
    for section in sections:
        assert list(section["variants"]) == ["old", "new"]
        assert len(section["variants"]["new"]["rounds"]) == 2
        assert section["facts"]["machines"]["old"]["build"]


def test_a_build_that_is_slower_than_allowed_fails(package):
    arguments = ["--old", sys.executable, "--packages", str(package.parent)]
    arguments += ["--families", "egru", "--threads", "1", "--rounds", "1"]
    done = run("builds", *arguments, "--within", "-100")  # nothing takes no time
    assert done.returncode == 1
    assert "egru, decode, 1 threads: the new build takes" in done.stdout
