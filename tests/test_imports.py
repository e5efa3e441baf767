"""The import rule, as a running process sees it; import-linter holds the rest."""

import subprocess
import sys

import pytest
from tiny import tiny_egru_package

import lm.families
import runtime.families

PARTS = ("lm", "runtime", "serving", "training", "torch", "grpc", "numpy")

SERVE_ONE_REQUEST = """
import sys
sys.modules["torch"] = None
import asyncio
import runtime
from serving.client import Client
from serving.config import ServingConfig
from serving.engine import Engine
from serving.request import Request
from serving.server import Server

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


def test_a_server_serves_with_torch_blocked(tmp_path):
    path = tiny_egru_package(tmp_path / "package")
    loaded = loaded_by(SERVE_ONE_REQUEST.format(path=str(path)))
    assert not loaded.intersection({"lm", "training", "transformers"})
