"""Install the wheel and the sdist as a stranger would, each in a fresh environment, and run them.

    python tools/smoke.py DIST

Everything runs outside the checkout with base dependencies alone: torch must not be needed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from demo import serving

PROMPT = "Once upon a time"
GENERATE = ["generate", PROMPT, "--max-new-tokens", "24", "--seed", "7"]


def run(*command: str | Path, cwd: Path) -> str:
    """Run `command` in `cwd` and return its output; a failure ends the run with what it said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        line = " ".join(map(str, command))
        sys.exit(f"error: {line}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def install(distribution: Path, directory: Path) -> Path:
    """Install `distribution` into a new environment in `directory`; return its `bin`."""
    venv.create(directory / "venv", with_pip=True)
    programs = directory / "venv" / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", distribution, cwd=directory)
    return programs


def smoke(distribution: Path, directory: Path) -> None:
    """Check that what `distribution` installs finds its model and says the same on both paths."""
    programs = install(distribution, directory)
    python, spiketrain = programs / "python", programs / "spiketrain"
    script = (
        "import importlib.util, spiketrain;"
        "assert importlib.util.find_spec('torch') is None, 'torch came along';"
        "print(spiketrain.bundled_model())"
    )
    model = run(python, "-c", script, cwd=directory).strip()
    if not Path(model).is_relative_to(directory):
        sys.exit(f"error: the bundled model is at {model}, not in the installation")
    print(run(spiketrain, "--version", cwd=directory).strip(), "from", distribution.name)
    run(spiketrain, "inspect", model, cwd=directory)
    in_process = run(spiketrain, *GENERATE, cwd=directory)
    with serving(spiketrain) as port:
        served = run(spiketrain, *GENERATE, "--server", f"127.0.0.1:{port}", cwd=directory)
    if in_process != served or not served.strip():
        sys.exit(f"error: in process {in_process!r}, over gRPC {served!r}")
    print(served.strip())


def main(dist: Path) -> None:
    """Smoke-test the one wheel and the one sdist in `dist`."""
    os.environ.pop("PYTHONPATH", None)
    for pattern in ("*.whl", "*.tar.gz"):
        (distribution,) = dist.glob(pattern)
        directory = Path(tempfile.mkdtemp(prefix="spiketrain-smoke-")).resolve()
        try:
            smoke(distribution.resolve(), directory)
        finally:
            shutil.rmtree(directory)
    print("smoke: both distributions run outside the checkout")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
