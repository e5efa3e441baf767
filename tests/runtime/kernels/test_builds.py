"""Compiled instructions: what runs on any x86-64 holds none that only newer processors have."""

import ctypes
import platform
import re
import shutil
import subprocess

import pytest

from spiketrain.runtime.kernels.isa import dispatch

AVX = re.compile(r"^v[a-z]|%[yz]mm|%k[0-7]")
NEWER = re.compile(
    r"^(pshufb|pabs[bwd]|pmulhrsw|ph(add|sub)|psign|palignr|pmov[sz]x|pm(in|ax)(s[bd]|u[wd])"
    r"|pmul(ld|dq)|p(extr|insr)[bdq]\b|p?blend|round[ps]|ptest|dpp[sd]|pcmp(eq|gt)q|h(add|sub)p"
    r"|addsub|movddup|movs[lh]dup|lddqu|crc32|popcnt|lzcnt|andn\b|bextr|bls(r|i|msk)\b"
    r"|(shl|sar|shr|ror|mul)x\b|pdep|pext\b|movbe)"
)

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="one build without x86 levels"),
    pytest.mark.skipif(not shutil.which("objdump"), reason="objdump is not installed"),
]


def output(*command):
    return subprocess.run(
        [*command, dispatch.__file__], check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def symbols():
    """(address, size, type, name) of every symbol, in the table's order: each file's together."""
    rows = [line.split() for line in output("readelf", "--symbols", "--wide").splitlines()]
    start = max(i for i, row in enumerate(rows) if row[:1] == ["Num:"])
    found = [
        (int(row[1], 16), int(row[2], 0), row[3], row[7] if len(row) > 7 else "")
        for row in rows[start + 1 :]
        if len(row) > 6
    ]
    if not any(kind == "FILE" for _, _, kind, _ in found):
        pytest.skip("the library is stripped")
    return found


@pytest.fixture(scope="module")
def instructions():
    """Instructions by address of the function that they belong to."""
    found, current = {}, None
    for line in output("objdump", "--disassemble", "--no-show-raw-insn").splitlines():
        if head := re.match(r"^([0-9a-f]+) <.*>:$", line):
            current = found.setdefault(int(head[1], 16), [])
        elif current is not None and (body := re.match(r"^ *[0-9a-f]+:\t(.+)$", line)):
            current.append(body[1])
    return found


def kernels_of(build, symbols):
    """Addresses of the functions in a build's table."""
    address, size = next((a, s) for a, s, _, name in symbols if name == f"st_kernels_{build}")
    library = ctypes.CDLL(dispatch.__file__)
    table = (ctypes.c_size_t * (size // 8)).in_dll(library, f"st_kernels_{build}")
    base = ctypes.addressof(table) - address
    return {pointer - base for pointer in table if pointer}


def functions_of(build, symbols):
    """Addresses of all functions in the file that a build was compiled from."""
    kernels, file, files = kernels_of(build, symbols), [], []
    for address, _, kind, _ in symbols:
        if kind == "FILE":
            file = []
            files.append(file)
        elif kind == "FUNC":
            file.append(address)
    (found,) = [file for file in files if kernels & set(file)]
    return found


def beyond(pattern, addresses, instructions):
    return [line for a in addresses for line in instructions.get(a, []) if pattern.search(line)]


def test_what_runs_everywhere_has_no_newer_instruction(symbols, instructions):
    wide = {a for build in ("avx2", "avx512") for a in functions_of(build, symbols)}
    plain = set(instructions) - wide
    assert set(functions_of("generic", symbols)) <= plain
    assert sum(len(instructions[a]) for a in plain) > 5000
    assert beyond(AVX, plain, instructions) == []
    assert beyond(NEWER, plain, instructions) == []


def test_the_avx2_build_has_no_avx512(symbols, instructions):
    functions = functions_of("avx2", symbols)
    assert beyond(re.compile("%ymm"), functions, instructions)
    assert (
        beyond(re.compile(r"%zmm|%k[0-7]|%[xy]mm(1[6-9]|2\d|3[01])"), functions, instructions) == []
    )


def test_the_inspection_sees_wide_instructions(symbols, instructions):
    assert beyond(re.compile("%zmm"), functions_of("avx512", symbols), instructions)
