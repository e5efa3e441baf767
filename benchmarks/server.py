"""A server of a package in another process, for benchmarks of serving."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

POLL_S = 0.05


class Server:
    """A running server: its address, and what its process has used."""

    def __init__(self, process_id: int, address: str) -> None:
        self.address = address
        self.process_id = process_id
        self._tasks = Path(f"/proc/{process_id}/task")

    def processor_s(self) -> float:
        """Processor seconds of all its threads so far, to the nanosecond."""
        files = self._tasks.glob("*/schedstat")
        return sum(int(file.read_text().split()[0]) for file in files) / 1e9


@contextmanager
def started(
    model: Path, program: Sequence[str] = ("-m", "spiketrain"), **settings: Any
) -> Iterator[Server]:
    """`spiketrain serve` of the model under these settings.

    program: what Python runs in place of the command line.
    """
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        flags = {"port": 0, "port_file": port_file, "log_level": "error", **settings}
        command = [sys.executable, *program, "serve", str(model)]
        for name, value in flags.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while not port_file.exists():
                if process.poll() is not None:
                    raise SystemExit(f"the server ended with {process.returncode}")
                time.sleep(POLL_S)
            yield Server(process.pid, f"127.0.0.1:{int(port_file.read_text())}")
        finally:
            process.terminate()
            process.wait()
