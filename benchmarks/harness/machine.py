"""What a benchmark ran on: processor, cores, the kernels' build, versions."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

RUNTIME_NAMES = ("spiketrain.runtime", "runtime")  # the installed name, and that of older builds
DISPATCH_NAMES = ("kernels.isa.dispatch", "kernels.dispatch")
PACKAGES = ("spiketrain", "numpy", "torch", "llama_cpp_python")


def runtime_module(name: str = "") -> Any:
    """The runtime of this Python, or its submodule `name`, whatever it is called there."""
    for package in RUNTIME_NAMES:
        if _is_there(package):
            return importlib.import_module(f"{package}.{name}" if name else package)
    raise ModuleNotFoundError(f"{sys.executable} has none of {', '.join(RUNTIME_NAMES)}")


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, kernels' build and versions."""
    return {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "build": build(),
        "system": platform.release(),
        "versions": {"python": platform.python_version(), **versions()},
    }


def processor() -> str:
    """The processor's own name, or the architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def build() -> str | None:
    """The instruction-set build of the kernels; None in a Python without the runtime."""
    for name in DISPATCH_NAMES:
        with suppress(ModuleNotFoundError):
            return str(runtime_module(name).active())
    return None


def versions() -> dict[str, str]:
    """Versions of what the figures may hang on, as far as it is installed."""
    installed = {name: next(metadata.distributions(name=name), None) for name in PACKAGES}
    return {name: one.version for name, one in installed.items() if one is not None}


def line(facts: dict[str, Any]) -> str:
    """The machine in a line."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    memory = facts["memory_bytes"] / (1 << 30)
    build = facts["build"] or "no"
    return f"{facts['cpu']}, {facts['cores']} cores, {memory:.0f} GiB, {build} kernels; {versions}"
