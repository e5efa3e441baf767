"""Variants in processes of their own, which stay alive and wait while others run.

A worker answers one JSON line on standard input with one line: {"subject", "units"} with
{"wall_s", "processor_s"} for a unit. What libraries print goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from harness.machine import machine
from harness.turns import Measure, Sample, timed

CLOSE_TIMEOUT_S = 60.0
Run = Callable[[int], object]


class Worker:
    """A process that runs `serve`; closing it ends the process."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self.machine: dict[str, Any] = self._answer()["ready"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def variant(self, subject: str, units: int) -> Measure:
        """The subject as a variant of `in_turns`: one run of so many units."""
        return lambda: self.measure(subject, units)

    def measure(self, subject: str, units: int) -> Sample:
        """Seconds a unit of one run; RuntimeError if the process ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"subject": subject, "units": units}) + "\n")
        self._process.stdin.flush()
        return Sample(**self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise RuntimeError(f"{' '.join(self._command)}: ended with status {status}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process, by force if it does not end by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def serve(runs: Mapping[str, Run]) -> None:
    """Answer requests from standard input until it is closed; a run gets the number of units."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)

        def answer(content: object) -> None:
            answers.write(json.dumps(content) + "\n")
            answers.flush()

        answer({"ready": machine()})
        for line in sys.stdin:
            request = json.loads(line)
            run, units = runs[request["subject"]], int(request["units"])
            sample = timed(lambda run=run, units=units: run(units), units)  # type: ignore[misc]
            answer({"wall_s": sample.wall_s, "processor_s": sample.processor_s})
