"""The generic build compiled for arm64 and run in an emulator gives the bits that it gives here."""

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import spiketrain.runtime.kernels

KERNELS = Path(spiketrain.runtime.kernels.__file__).parent
FOLDERS = ("isa", "products", "vectors")
SOURCES = (
    "isa/build.c",
    *(f"products/{name}.c" for name in ("dense", "formats", "packing", "pool")),
)
SUMS = Path(__file__).with_name("kernel_sums.c")
# Those of meson.build, which wants neither errno nor traps of functions of floats.
FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off")
CROSS, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"


def sums(compiler, folder, *run):
    """What kernel_sums.c prints: the name of every kernel and a checksum of its outputs."""
    program = folder / "kernel_sums"
    flags = [*FLAGS, "-DST_BUILD=generic", "-static", "-pthread"]
    flags += [f"-I{KERNELS / folder}" for folder in FOLDERS]
    sources = [SUMS, *(KERNELS / name for name in SOURCES)]
    subprocess.run([compiler, *flags, *sources, "-lm", "-o", program], check=True)
    return subprocess.run(
        [*run, str(program)], check=True, capture_output=True, text=True
    ).stdout.splitlines()


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="compares x86-64 with arm64")
@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
@pytest.mark.skipif(not shutil.which(CROSS), reason=f"{CROSS} is not installed")
@pytest.mark.skipif(not shutil.which(EMULATOR), reason=f"{EMULATOR} is not installed")
def test_kernels_have_the_same_bits_on_arm64(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here = sums("gcc", tmp_path / "here")
    there = sums(CROSS, tmp_path / "there", EMULATOR)
    assert there == here
    names = set(
        re.findall(r"^ST_KERNEL\(\w+, (\w+),", (KERNELS / "isa/kernels.def").read_text(), re.M)
    )
    others = {"multiply_shared", "rows_int8_shared"}  # no part of this build
    assert {line.split()[0] for line in here} == names - others
