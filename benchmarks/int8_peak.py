"""What the cores can do: int8 multiplications a second of a loop of nothing but vpdpbusd.

The loop is C, compiled here with `cc`: 24 sums in registers, no memory. Without a compiler, or on a
processor without AVX-512 VNNI, there is no figure.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUMS = 24
BYTES = 64  # multiplied at a time
TURNS = 4_000_000

SOURCE = f"""
#include <immintrin.h>
#include <stdint.h>

int spin(int64_t turns)
{{
    __m512i sum[{SUMS}], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(2);
#pragma GCC unroll {SUMS}
    for (int i = 0; i < {SUMS}; i++) sum[i] = _mm512_set1_epi32(i);
    for (int64_t t = 0; t < turns; t++) {{
#pragma GCC unroll {SUMS}
        for (int i = 0; i < {SUMS}; i++)
            __asm__ volatile("vpdpbusd %1, %2, %0" : "+v"(sum[i]) : "v"(a), "v"(b));
    }}
#pragma GCC unroll {SUMS}
    for (int i = 1; i < {SUMS}; i++) sum[0] = _mm512_add_epi32(sum[0], sum[i]);
    return _mm512_reduce_add_epi32(sum[0]);
}}
"""


class Peak:
    """The compiled loop."""

    def __init__(self, spin: ctypes._NamedFuncPointer) -> None:
        self._spin = spin

    @classmethod
    def compiled(cls) -> Peak | None:
        """None where the loop cannot be compiled or run."""
        compiler, flags = shutil.which("cc"), Path("/proc/cpuinfo")
        if compiler is None or not flags.exists() or "avx512_vnni" not in flags.read_text():
            return None
        with tempfile.TemporaryDirectory() as folder:
            source, library = Path(folder) / "peak.c", Path(folder) / "peak.so"
            source.write_text(SOURCE)
            command = [compiler, "-O2", "-mavx512f", "-mavx512vnni", "-shared", "-fPIC"]
            subprocess.run([*command, str(source), "-o", str(library)], check=True)
            spin = ctypes.CDLL(str(library)).spin
        spin.argtypes = [ctypes.c_int64]
        return cls(spin)

    def multiplications_per_s(self, threads: int) -> float:
        """Of so many threads at a time."""
        with ThreadPoolExecutor(threads) as pool:
            start_s = time.perf_counter()
            list(pool.map(self._spin, [TURNS] * threads))
            return threads * TURNS * SUMS * BYTES / (time.perf_counter() - start_s)
