"""Print Cython's declaration of the table of kernels.

    python tools/kernel_table.py KERNELS_DEF

Called by meson.build; runtime/kernels/isa/dispatch.pxd includes what it prints.
"""

import re
import sys
from pathlib import Path

KERNEL = re.compile(r"^ST_KERNEL\((\w+), (\w+), (\(.*\))\)$", re.MULTILINE)


def declaration(table: str) -> str:
    """The struct st_kernels with a function pointer for each line of the table."""
    kernels = KERNEL.findall(table)
    if len(kernels) != table.count("\nST_KERNEL("):
        raise ValueError("each kernel must have one line: ST_KERNEL(result, name, (arguments))")
    lines = [f"        {result} (*{name}){rest} noexcept nogil" for result, name, rest in kernels]
    head = ['cdef extern from "kernels.h" nogil:', "    ctypedef struct st_kernels:"]
    return "\n".join([*head, "        const char *name", *lines, ""])


if __name__ == "__main__":
    print(declaration(Path(sys.argv[1]).read_text()), end="")
