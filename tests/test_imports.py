"""The import rule, as a running process sees it; import-linter holds the rest."""

import subprocess
import sys

import pytest

import lm.families
import runtime.families

PARTS = ("lm", "runtime", "serving", "training", "torch", "grpc", "numpy")


def loaded_by(statements: str) -> set[str]:
    """Run `statements` in a fresh interpreter; return the top-level modules it then holds."""
    script = f"{statements}\nimport sys\nprint(*sorted(n for n in sys.modules if '.' not in n))"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_facade_imports_nothing_eagerly():
    assert not loaded_by("import spiketrain").intersection(PARTS)


def test_the_help_imports_no_part():
    script = """
from typer.testing import CliRunner
from spiketrain.cli import app
for arguments in (["--help"], ["--version"]):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
"""
    assert not loaded_by(script).intersection(PARTS)


def test_every_family_has_a_model_and_a_runtime():
    assert lm.families.NAMES == runtime.families.NAMES


@pytest.mark.parametrize("module", ["runtime", "serving.engine", "serving.server"])
def test_a_server_needs_no_torch(module):
    loaded = loaded_by(f"import sys\nsys.modules['torch'] = None\nimport {module}")
    assert not loaded.intersection({"lm", "training", "transformers"})


def test_an_engine_needs_no_grpc():
    loaded_by("import sys\nsys.modules['grpc'] = None\nimport serving.engine")
