"""The import rule, as a running process sees it; import-linter holds the rest."""

import shutil
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import pytest
from tiny import tiny_egru_package

import spiketrain.lm.families
import spiketrain.runtime.families

OURS = ("spiketrain.lm", "spiketrain.runtime", "spiketrain.serving", "spiketrain.training")
ROOT = Path(__file__).parent.parent
PARTS = (*OURS, "torch", "grpc", "numpy")
TRAINING = {"spiketrain.lm", "spiketrain.training", "transformers"}
FOREIGN = ("lm", "runtime", "serving", "training", "commands", "kernels")

SERVE_ONE_REQUEST = """
import sys
sys.modules["torch"] = None
import asyncio
from spiketrain import runtime
from spiketrain.serving.client.client import Client
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.request.request import Request
from spiketrain.serving.rpc.server import Server

def ask(port):
    with Client(f"127.0.0.1:{{port}}") as client:
        return list(client.generate_stream(Request("abc", max_new_tokens=3)))

async def main():
    model = runtime.load_model({path!r})
    server = Server(Engine(model, ServingConfig(port=0)), "tiny")
    port = await server.start()
    assert await asyncio.to_thread(ask, port)
    await server.stop(1.0)

asyncio.run(main())
"""


def loaded_by(statements: str) -> set[str]:
    """Run `statements` in a fresh interpreter; return the modules that it then holds."""
    script = f"{statements}\nimport sys\nprint(*sys.modules)"
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
    assert spiketrain.lm.families.NAMES == spiketrain.runtime.families.NAMES


@pytest.mark.parametrize(
    "module",
    ["spiketrain.runtime", "spiketrain.serving.engine.engine", "spiketrain.serving.rpc.server"],
)
def test_a_server_needs_no_torch(module):
    loaded = loaded_by(f"import sys\nsys.modules['torch'] = None\nimport {module}")
    assert not loaded.intersection(TRAINING)


def test_an_engine_needs_no_grpc():
    loaded_by("import sys\nsys.modules['grpc'] = None\nimport spiketrain.serving.engine.engine")


def test_a_server_serves_with_torch_blocked(tmp_path):
    path = tiny_egru_package(tmp_path / "package")
    loaded = loaded_by(SERVE_ONE_REQUEST.format(path=str(path)))
    assert not loaded.intersection(TRAINING)


def test_foreign_folders_of_our_names_are_not_in_the_way(tmp_path):
    """Python looks into the working directory first; other wheels install folders of any name."""
    for name in FOREIGN:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a foreign package')\n")
    script = "; ".join(f"import {name}" for name in OURS)
    for start in (["-c", script], ["-m", "spiketrain", "inspect", "--help"]):
        done = subprocess.run(
            [sys.executable, *start], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_one_name_is_installed():
    top = {Path(str(file)).parts[0] for file in files("spiketrain") or ()}
    assert not top & {"lm", "runtime", "serving", "training"}


def test_sources_that_were_not_built_use_the_installed_copy(tmp_path):
    """Whoever starts Python in the root of a checkout meets the sources first."""
    sources, site = tmp_path / "checkout" / "spiketrain", tmp_path / "site" / "spiketrain"
    sources.mkdir(parents=True)
    (site / "runtime" / "kernels").mkdir(parents=True)
    (site / "runtime" / "__init__.py").write_text("INSTALLED = True\n")
    shutil.copy(ROOT / "spiketrain" / "__init__.py", sources)
    script = "import spiketrain.runtime; assert spiketrain.runtime.INSTALLED"
    run = {"cwd": sources.parent, "capture_output": True, "text": True, "check": False}
    command = [sys.executable, "-S", "-c", script]
    installed = subprocess.run(command, env={"PYTHONPATH": str(site.parent)}, **run)
    assert installed.returncode == 0, installed.stderr
    alone = subprocess.run(command, env={}, **run)
    assert "pip install ." in alone.stderr.splitlines()[-1]
