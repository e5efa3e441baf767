"""The other end of `confinement.py`: a process that forks a child with limits for each question.

A spare child is forked ahead and answers a question of its own first, so that the next one finds
its memory and code at hand.

This module imports neither NumPy nor the runtime, nor does a program that has no need of them, so
that the process is small and forks fast. It ends when its parent closes the control socket or dies.
"""

import gc
import importlib
import json
import os
import resource
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol, cast

OK, REFUSED, FAILED = b"\0", b"\1", b"\2"  # first byte of an answer
_SIZE = struct.Struct("<I")
_TRIES = 3  # spare children that may die of the question that warms them


class Program(Protocol):
    """What a module of a program offers."""

    WARM: bytes  # a question that a spare child asks itself

    def load(self, setup: bytes) -> Callable[[bytes], bytes]:
        """What answers questions."""
        ...


class Refused(Exception):  # noqa: N818
    """A program refuses its question; the text reaches the one who asked."""


class Limits(NamedTuple):
    """Of one question: seconds of work and on the clock; bytes beyond those at its start."""

    cpu_s: float
    wall_s: float
    memory_bytes: int


def main() -> None:
    """Load a program, then answer until the control socket is closed; arguments as `Confinement`.

    The setup is the first question; its answer says whether the program could be loaded.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    module, limits = sys.argv[2], Limits(*json.loads(sys.argv[3]))
    for number in (signal.SIGINT, signal.SIGTERM):  # those of a terminal's group: for the parent
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    question, status = _next_question(control)
    if question is None:
        return
    with question:
        setup = receive_frame(question)
        try:
            program = cast(Program, importlib.import_module(module))
            answer = program.load(setup)
        except Exception as error:
            send_frame(question, REFUSED + f"{error!s}".encode()[:2000])
            return
        finally:
            os.close(status)
        send_frame(question, OK)
    gc.collect()
    gc.freeze()  # children leave these pages alone
    _Answering(control, answer, program.WARM, limits).run()


def receive_frame(connection: socket.socket) -> bytes:
    """A message, of any length. Raises EOFError where the other side is gone before its end."""
    (size,) = _SIZE.unpack(_receive(connection, _SIZE.size))
    return bytes(_receive(connection, size))


def send_frame(connection: socket.socket, message: bytes) -> None:
    """Send a message for `receive_frame`."""
    connection.sendall(_SIZE.pack(len(message)))
    connection.sendall(message)


def _receive(connection: socket.socket, size: int) -> bytearray:
    message = bytearray(size)
    rest = memoryview(message)
    while rest:
        count = connection.recv_into(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return message


class _Answering:
    """Has a child answer each question that arrives, and says how each child ended."""

    def __init__(
        self,
        control: socket.socket,
        answer: Callable[[bytes], bytes],
        warm: bytes,
        limits: Limits,
    ) -> None:
        self._control = control
        self._answer = answer
        self._warm = warm
        self._limits = limits
        self._spare, self._to_spare = 0, socket.socket()
        self._status_of: dict[int, int] = {}  # child -> where to write how it ended

    def run(self) -> None:
        """Answer until the control socket is closed."""
        ended, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._fork()
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj == ended:
                        os.read(ended, 4096)
                        self._reap()
                    elif not self._hand_over():
                        self._kill()
                        return

    def _hand_over(self) -> bool:
        """Leave the next question to the spare child and fork another; False if there is none."""
        question, status = _next_question(self._control)
        if question is None:
            return False
        with question:
            tries = 0
            while not (sent := self._sent(question)) and tries < _TRIES:
                self._fork()
                tries += 1
        if not sent:  # the question's end is closed: its parent hears of it
            os.close(status)
            return True
        self._status_of[self._spare] = status
        self._fork()
        return True

    def _sent(self, question: socket.socket) -> bool:
        """Whether the spare child was there to take it."""
        try:
            socket.send_fds(self._to_spare, [b"?"], [question.fileno()])
        except OSError:
            return False
        return True

    def _fork(self) -> None:
        """Fork the spare child."""
        self._to_spare.close()
        self._to_spare, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._spare = os.fork()
        if self._spare == 0:
            self._control.close()  # so that a parent notices where this process dies
            self._to_spare.close()
            _answer(self._answer, self._warm, there, self._limits)
        there.close()

    def _kill(self) -> None:
        """End the children: nobody waits for them."""
        for child in (self._spare, *self._status_of):
            os.kill(child, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if child == 0:
                return
            where = self._status_of.pop(child, None)
            if where is None:  # a spare one: noticed when it is needed
                continue
            with suppress(BrokenPipeError):  # the answer was all that mattered
                os.write(where, _SIZE.pack(status))
            os.close(where)


def _next_question(control: socket.socket) -> tuple[socket.socket | None, int]:
    """The two ends that the parent sends: of a connection, and of a pipe for the exit status."""
    try:
        message, numbers, _, _ = socket.recv_fds(control, 1, 2)
    except ConnectionError:
        return None, -1
    if not message:
        return None, -1
    return socket.socket(fileno=numbers[0]), numbers[-1]


def _answer(
    program: Callable[[bytes], bytes], warm: bytes, source: socket.socket, limits: Limits
) -> None:
    """Answer one question and end, in the child; a limit that is passed ends it by a signal."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _limit_memory(limits.memory_bytes)
        _limit_time(limits.cpu_s, limits.wall_s)
        with suppress(BaseException):  # whatever it is, it is not asked for
            program(warm)
        _limit_time(0.0, 0.0)
        question, _ = _next_question(source)
        if question is None:
            return
        _limit_time(limits.cpu_s, limits.wall_s)
        asked = receive_frame(question)
        try:
            answer = OK + program(asked)
        except Refused as refusal:
            answer = REFUSED + str(refusal).encode(errors="replace")
        except BaseException as error:  # a library's panic is no Exception
            answer = FAILED + f"{type(error).__name__}: {error!s:.500}".encode(errors="replace")
        send_frame(question, answer)
    finally:
        os._exit(0)


def _limit_memory(memory_bytes: int) -> None:
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    most = now + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _limit_time(cpu_s: float, wall_s: float) -> None:
    """Have the kernel end this process where it takes longer; 0 for no limit."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.setitimer(signal.ITIMER_REAL, wall_s)
