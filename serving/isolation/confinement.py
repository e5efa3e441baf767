"""Confinement: runs what a client or a package wrote where a crash or a hang costs one call alone.

A program (a module with `load(setup) -> answer(question)`, bytes in and out) is loaded once into a
small process of its own. Each question is answered by a fork of that process, whose processor time,
time on the clock and memory the kernel limits. Nothing that comes back is trusted to be more than
bytes. The process is started by the first question or by `warm`, and again after it has died.
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType

import structlog

from spiketrain.serving.errors import ConfinementFailed, Draining, ServingError
from spiketrain.serving.isolation import confined_process
from spiketrain.serving.isolation.budget import held
from spiketrain.serving.isolation.confined_process import (
    FAILED,
    OK,
    Limits,
    Refused,
    receive_frame,
    send_frame,
)
from spiketrain.serving.isolation.question_turns import QuestionTurns

log = structlog.get_logger()

MAX_RUNNING = 4  # children at once
MAX_WAITING = 32  # questions that wait for one of these
_START_S = 60.0  # for loading a program, on a busy machine
_GRACE_S = 5.0  # beyond its own limit, until a child is taken for lost
_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); import {0}; {0}.main()"
# A process that forks has one thread.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_OUT_OF_TIME = (signal.SIGPROF, signal.SIGALRM, signal.SIGXCPU)


class Died(Exception):  # noqa: N818
    """A question had its child killed, or crashed it; says how, for the one who asked."""


class Confinement:
    """One program in a process of its own; any thread. Call `close`, or leave it to collection.

    setup: makes what the program is loaded with, at each start. limits: of one question.
    """

    def __init__(self, program: ModuleType, setup: Callable[[], bytes], limits: Limits) -> None:
        self._program = program.__name__
        self._setup = setup
        self._limits = limits
        self._process: _Process | None = None
        self._closed = False
        self._starting = threading.Lock()
        self._turns = QuestionTurns(MAX_RUNNING, MAX_WAITING)

    def ask(self, question: bytes) -> bytes:
        """The program's answer; a caller with a name has half of the children at most.

        Raises Refused as the program does; Died; TooManyQuestions; ConfinementFailed; Draining.
        """
        call = held()
        with self._turns.turn("" if call is None else call.caller):
            for _ in range(2):
                process = self._started()
                try:
                    return _content(process.ask(question))
                except ConnectionError:  # it has died since: once more with another
                    self._forget(process)
        raise ConfinementFailed(f"{self._program} ends as soon as it is started")

    def warm(self) -> None:
        """Start the process now, so that no question waits for it. Raises ConfinementFailed."""
        self._started()

    def warm_beside(self) -> None:
        """The same in a thread of its own, with the failure in the log."""
        threading.Thread(target=self._warm, name="warm", daemon=True).start()

    def _warm(self) -> None:
        try:
            self._started()
        except ServingError as error:  # questions will fail with it
            log.error("a process with limits cannot be started", error=str(error))

    def close(self) -> None:
        """End the process and what it is asked; later questions are refused."""
        with self._starting:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            process.close()

    def _started(self) -> "_Process":
        with self._starting:
            if self._closed:
                raise Draining
            if self._process is None:
                self._process = _Process(self._program, self._setup(), self._limits)
            return self._process

    def _forget(self, process: "_Process") -> None:
        with self._starting:
            if self._process is process:
                self._process = None
        process.close()


class _Process:
    """A running process with its program loaded."""

    def __init__(self, program: str, setup: bytes, limits: Limits) -> None:
        """Raises ConfinementFailed."""
        self._limits = limits
        self._control, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = (
            str(there.fileno()),
            program,
            json.dumps(limits),
            json.dumps([*map(str, sys.path)]),
        )
        code = _CODE.format(confined_process.__name__)
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                pass_fds=(there.fileno(),),
                env={**os.environ, **_ONE_THREAD},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            self._control.close()
            raise ConfinementFailed(f"{program} cannot be started: {error}") from None
        finally:
            there.close()
        self._end = weakref.finalize(self, _end, self._control, self._popen)
        try:
            answer = self._exchange(setup, _START_S)
        except (Died, ConnectionError) as error:
            self.close()
            raise ConfinementFailed(f"{program} cannot be started: {error}") from None
        if answer[:1] != OK:
            self.close()
            raise ConfinementFailed(f"{program} cannot be loaded: {_text(answer[1:])}")

    def ask(self, question: bytes) -> bytes:
        """The answer's bytes. Raises Died, or ConnectionError where the process is gone."""
        return self._exchange(question, self._limits.wall_s + _GRACE_S)

    def close(self) -> None:
        """End the process and wait for it."""
        self._end()

    def _exchange(self, message: bytes, longest_s: float) -> bytes:
        connection, status = self._connect()
        try:
            with connection:
                connection.settimeout(longest_s)
                with suppress(BrokenPipeError):  # a child that has died is noticed below
                    send_frame(connection, message)
                return receive_frame(connection)
        except TimeoutError:
            raise Died(f"took more than {longest_s:g} s") from None
        except (EOFError, ConnectionError):
            raise self._why(status) from None
        finally:
            os.close(status)

    def _connect(self) -> tuple[socket.socket, int]:
        here, there = socket.socketpair()
        status, status_there = os.pipe()
        try:
            socket.send_fds(self._control, [b"?"], [there.fileno(), status_there])
        except OSError as error:  # also of a socket that `close` has closed meanwhile
            here.close()
            os.close(status)
            raise ConnectionError(str(error)) from None
        finally:
            there.close()
            os.close(status_there)
        return here, status

    def _why(self, status: int) -> Exception:
        """What became of a child that left no answer."""
        ended = os.read(status, 4)
        if len(ended) < 4:
            return ConnectionError("the process is gone")
        (code,) = struct.unpack("<I", ended)
        number = code & 0x7F
        if number in _OUT_OF_TIME:
            return Died(f"takes more than {self._limits.cpu_s:g} s of work")
        if number in (signal.SIGABRT, signal.SIGKILL) or not number:
            return Died(f"needs more than {self._limits.memory_bytes >> 20} MiB of memory")
        return Died(f"crashes its library ({signal.Signals(number).name})")


def _end(control: socket.socket, popen: "subprocess.Popen[bytes]") -> None:
    """Close the control socket, on which the process ends; kill it if it does not."""
    control.close()
    try:
        popen.wait(1.0)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()


def _content(answer: bytes) -> bytes:
    if answer[:1] == OK:
        return answer[1:]
    if answer[:1] == FAILED:
        raise Died(f"fails in its library ({_text(answer[1:])})")
    raise Refused(_text(answer[1:]))


def _text(message: bytes) -> str:
    return message.decode(errors="replace")
