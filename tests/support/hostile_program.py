"""A program for a Confinement that does what a question says, be it harmful."""

import ctypes
import os
import signal
import time

from spiketrain.serving.isolation.confined_process import Refused

WARM = b"warm"


class Panic(BaseException):
    """As pyo3 raises a panic: no Exception."""


def load(setup):
    def answer(question):
        name, _, argument = question.partition(b" ")
        if name == b"echo":
            return setup + argument
        if name == b"refuse":
            raise Refused(argument.decode())
        if name == b"panic":
            raise Panic("wat")
        if name == b"spin":
            while True:
                pass
        if name == b"sleep":
            time.sleep(1000)
        if name == b"allocate":
            return b"%d" % len(bytearray(8 << 30))
        if name == b"crash":
            ctypes.string_at(0)
        if name == b"kill parent":
            os.kill(os.getppid(), signal.SIGKILL)
        if name == b"kill":
            os.kill(int(argument), signal.SIGKILL)
        if name == b"long":
            return bytes(int(argument))
        if name == b"warm":
            raise Panic("warm")
        if name == b"pid":
            return b"%d" % os.getpid()
        raise AssertionError(question)

    if setup == b"broken":
        raise ValueError("no such setup")
    return answer
