"""What the README and docs/serving.md show of clients is what it prints beside a server."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import structlog

import spiketrain
from spiketrain import runtime
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.logs import log_to_stderr
from spiketrain.serving.rpc.local import serving_locally

ROOT = Path(__file__).parent.parent
BLOCK = r"^#+ {}\n(?:(?!^#|^```).)*```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?"


@pytest.fixture(scope="module")
def address():
    engine = Engine(runtime.load_model(spiketrain.bundled_model()), ServingConfig(port=0))
    log_to_stderr("error")
    with serving_locally(engine, "bundled") as address:
        yield address
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("file", "title"),
    [
        ("README.md", "From Python"),
        ("docs/serving.md", "Sessions from the stubs"),
        ("docs/serving.md", "Clients"),
    ],
)
def test_a_client_prints_what_is_shown(address, file, title):
    text = (ROOT / file).read_text(encoding="utf-8")
    code, shown = re.search(BLOCK.format(title), text, re.DOTALL | re.MULTILINE).groups()
    assert "127.0.0.1:50051" in code
    printed = StringIO()
    with redirect_stdout(printed):
        exec(code.replace("127.0.0.1:50051", address), {})
    assert printed.getvalue()
    if shown is not None:
        assert printed.getvalue() == shown
