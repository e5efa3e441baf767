"""Choose, once at import, the instruction-set build of the kernels that this CPU runs best.

The environment variable SPIKETRAIN_ISA forces one: generic, avx2 or avx512. All builds give the
same bits, so nothing that is stored names the build.
"""

import os

from spiketrain.runtime.errors import SpiketrainError

cdef extern from "kernels.h" nogil:
    const st_kernels *st_find_kernels(const char *name)
    int st_can_run(const char *name)
    const char *const st_build_names[]

cdef const st_kernels *chosen = NULL


cdef const st_kernels *current() noexcept nogil:
    return chosen


def builds():
    """Names of the builds in this installation, best first."""
    names = []
    cdef Py_ssize_t i = 0
    while st_build_names[i] != NULL:
        names.append(st_build_names[i].decode())
        i += 1
    return tuple(names)


def runnable():
    """Names of the builds that this CPU can run, best first."""
    return tuple(name for name in builds() if st_can_run(name.encode()))


def active():
    """Name of the build in use."""
    return chosen.name.decode()


def select(name):
    """Use the build called `name` from now on; networks keep the build they were made with."""
    global chosen
    if name not in builds():
        raise SpiketrainError(
            f"SPIKETRAIN_ISA must be one of {', '.join(builds())}, got {name!r}"
        )
    if name not in runnable():
        raise SpiketrainError(
            f"SPIKETRAIN_ISA must name instructions that this CPU has, "
            f"{', '.join(runnable())}, got {name!r}"
        )
    chosen = st_find_kernels(name.encode())


select(os.environ.get("SPIKETRAIN_ISA") or runnable()[0])
