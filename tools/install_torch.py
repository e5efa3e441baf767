"""Install torch into an environment: a CPU build where one can be had.

    python tools/install_torch.py VERSION [--python PYTHON]

The first of these that works ends the search:

1. PYTHON (default: this interpreter) imports torch already, of any version;
2. pip finds `VERSION+cpu` in the indexes that it is configured with;
3. uv, which knows PyTorch's CPU index by itself, installs VERSION; where no uv is on PATH, pip
   fetches one into a temporary folder;
4. pip installs the plain release. On Linux it brings CUDA libraries, so its size is printed first.

Exits with 1, and shows what each try said, if none works.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

SIZE_TIMEOUT_S = 30.0


class Installer:
    """The tries, in an environment's `python`; what failed tries said is kept in `failures`."""

    def __init__(self, python: str, version: str) -> None:
        self.python, self.version = python, version
        self.failures: list[str] = []

    def is_installed(self) -> bool:
        """Whether `python` imports torch."""
        return self._runs([self.python, "-c", "import torch"])

    def from_indexes(self) -> bool:
        """Install the CPU build that pip finds by itself."""
        say(f"looking for a CPU build of torch {self.version} in pip's indexes")
        return self._installs([*self._pip("install"), f"torch=={self.version}+cpu"])

    def with_uv(self) -> bool:
        """Install from PyTorch's CPU index, whose place uv knows."""
        say(f"asking uv for a CPU build of torch {self.version}")
        with tempfile.TemporaryDirectory() as folder:
            uv = shutil.which("uv")
            if uv is None:
                if not self._installs([*self._pip("install"), "--target", folder, "uv"]):
                    return False
                uv = str(Path(folder) / "bin" / "uv")
            command = [uv, "pip", "install", "--quiet", "--python", self.python]
            return self._installs([*command, "--torch-backend=cpu", f"torch=={self.version}"])

    def plain(self) -> bool:
        """Install the release that is no CPU build, after a word on its size."""
        say(f"no CPU build of torch {self.version} was found: installing the plain release")
        say(f"pip downloads {self.download_size()}; on Linux this is a build for CUDA")
        return self._installs([*self._pip("install"), f"torch=={self.version}"])

    def download_size(self) -> str:
        """What the plain release and its dependencies take, in words."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            command = [*self._pip("install"), "--dry-run", "--report", str(report)]
            if not self._installs([*command, f"torch=={self.version}"]):
                return "an unknown number of bytes"
            content = json.loads(report.read_text(encoding="utf-8"))
        urls = [item["download_info"]["url"] for item in content["install"]]
        try:
            size = sum(size_at(url) for url in urls)
        except (URLError, OSError, ValueError):
            return f"{len(urls)} files of unknown size"
        return f"{size / 1e9:.2f} GB in {len(urls)} files"

    def _pip(self, command: str) -> list[str]:
        return [self.python, "-m", "pip", command, "--quiet", "--disable-pip-version-check"]

    def _installs(self, command: list[str]) -> bool:
        return self._runs(command, keep=True)

    def _runs(self, command: list[str], keep: bool = False) -> bool:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            self.failures.append(f"{command[0]}: {error}")
            return False
        if done.returncode and keep:
            line = " ".join(command)
            self.failures.append(f"{line}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.returncode == 0


def size_at(url: str) -> int:
    """Bytes of the file at a URL, without its content; ValueError where nobody says."""
    with urlopen(Request(url, method="HEAD"), timeout=SIZE_TIMEOUT_S) as answer:
        return int(answer.headers["Content-Length"] or "unknown")


def say(message: str) -> None:
    """Print progress to standard error."""
    print(message, file=sys.stderr, flush=True)


def install(python: str, version: str) -> int:
    """Return the exit status: 0 once `python` has torch."""
    tries = Installer(python, version)
    if tries.is_installed():
        return 0
    if any(attempt() for attempt in (tries.from_indexes, tries.with_uv, tries.plain)):
        return 0
    print(*tries.failures, sep="\n", file=sys.stderr)
    say(f"torch {version} cannot be installed: name an index that has it in PIP_EXTRA_INDEX_URL")
    return 1


def main() -> int:
    """Parse the command line and install."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version", help="release, such as 2.13.0")
    parser.add_argument("--python", default=sys.executable, help="of the environment")
    options = parser.parse_args()
    return install(options.python, options.version)


if __name__ == "__main__":
    sys.exit(main())
