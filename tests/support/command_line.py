"""The `spiketrain` command as processes of their own: one that ends, and a server."""

import subprocess
import sys
from contextlib import contextmanager

from spiketrain.serving.request.events import Delta

PATIENCE_S = 120.0  # no test takes long, but a busy machine may
# Greedy, the tiny model never ends a text by itself; and whoever prints it waits for who reads it.
ENDLESS = {"temperature": 0.0, "max_new_tokens": 60000}
ENDLESS_FLAGS = ("--temperature", "0", "--max-new-tokens", "60000")
UNREAD_BYTES = 4096
# As a user's shell would run it, with torch out of reach.
COMMAND = [
    sys.executable,
    "-c",
    "import sys; sys.modules['torch'] = None; from spiketrain.cli import main; main()",
]


def run(*arguments, **options):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE_S,
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


@contextmanager
def started(*arguments):
    """A process of the command that waits once UNREAD_BYTES of its output are not read."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pipesize=UNREAD_BYTES,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


@contextmanager
def server(package, *arguments):
    """A server process; the value is the process, the first line it prints, and its address."""
    process = subprocess.Popen(
        [*COMMAND, "serve", str(package), "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        line = process.stdout.readline().decode()
        assert line.startswith("listening on "), process.stderr.read().decode()
        yield process, line.removeprefix("listening on ").strip()
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, Delta))
