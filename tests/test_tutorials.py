"""The tutorials, typed through as they stand in an empty folder."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import pytest

for name in ("torch", "transformers", "matplotlib"):
    pytest.importorskip(name)

TUTORIALS = Path(__file__).parent.parent / "docs" / "tutorials.md"
BLOCK = re.compile(r"^( *)```(sh|python)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
PORT = "50051"


def free_port():
    """A port that the system gives nobody by itself before the tutorials come to use it."""
    for port in random.sample(range(10_000, 30_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return str(port)
    raise OSError("no port is free")


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """What each block of shell printed, and the folder in the end."""
    folder = tmp_path_factory.mktemp("tutorials")
    port, printed = free_port(), []
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    for _, language, code in BLOCK.findall(TUTORIALS.read_text(encoding="utf-8")):
        code = dedent(code).replace(PORT, port)
        if language == "python":
            command = [sys.executable, "-c", code]
        else:
            command = ["bash", "-e", "-c", code]
        with (tmp_path_factory.mktemp("output") / "output").open("w+") as output:
            running = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            code_of_exit = running.wait()
            with suppress(ProcessLookupError):  # what a block that failed has left
                os.killpg(running.pid, signal.SIGTERM)
            output.seek(0)
            printed.append(output.read())
        assert code_of_exit == 0, f"{code}\n{printed[-1]}"
    return folder, "\n".join(printed)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_command_of_the_tutorials_does_what_it_says(typed):
    folder, printed = typed
    tales = (folder / "my.txt").read_text("utf-8").split("\n<|endoftext|>\n")
    assert tales.pop() == ""
    assert len(set(tales)) == 6
    assert all(tale.startswith("Once upon a time") for tale in tales)
    told = tales[0].removeprefix("Once upon a time").strip()
    assert printed.count(told) == 2  # served, and in process
    for part in ("rolling: each document alone", "95 % interval", "small against full",
                 "measured:", "65,536", "parameters", "its twin in the other backend"):  # fmt: skip
        assert part in printed
    assert (folder / "report.html").read_text("utf-8").count("data:image/png") == 4
    assert len((folder / "lines.jsonl").read_text().splitlines()) == 6
