"""What the README shows of the Python client is what it prints beside a server."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import structlog

import runtime
import spiketrain
from serving.config import ServingConfig
from serving.engine import Engine
from serving.local import serving_locally
from serving.logs import log_to_stderr

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"### From Python\n\n```python\n(.*?)```\n\n```text\n(.*?)```\n", re.DOTALL)


def test_the_client_prints_what_the_readme_shows():
    code, shown = BLOCK.search(README.read_text(encoding="utf-8")).groups()
    engine = Engine(runtime.load_model(spiketrain.bundled_model()), ServingConfig(port=0))
    printed = StringIO()
    log_to_stderr("error")
    with serving_locally(engine, "bundled") as address, redirect_stdout(printed):
        exec(code.replace("127.0.0.1:50051", address), {})
    structlog.reset_defaults()
    assert printed.getvalue() == shown
