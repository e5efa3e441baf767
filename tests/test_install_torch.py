"""torch comes from the first place that has it, and a large download is announced."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "install_torch.py"

# Both stand-ins write down how they were called and succeed if a line of `works` is in the call.
STAND_IN = """#!{python}
import json, pathlib, shutil, sys
folder = pathlib.Path({folder!r})
call = " ".join([{name!r}, *sys.argv[1:]])
with open(folder / "calls", "a") as calls:
    calls.write(call + "\\n")
if not any(line in call + '$' for line in (folder / "works").read_text().splitlines()):
    sys.exit(f"refused: {{call}}")
if "--target" in sys.argv:
    place = pathlib.Path(sys.argv[sys.argv.index("--target") + 1]) / "bin"
    place.mkdir()
    shutil.copy(folder / "uv-to-fetch", place / "uv")
if "--report" in sys.argv:
    report = pathlib.Path(sys.argv[sys.argv.index("--report") + 1])
    report.write_text((folder / "report.json").read_text())
"""

IMPORT = "python -c import torch"
CPU_BUILD = "torch==9.9.9+cpu"
WITH_UV = "--torch-backend=cpu torch==9.9.9"
FETCH_UV = "--target"
DRY_RUN = "--dry-run"
PLAIN = "--disable-pip-version-check torch==9.9.9$"


class Machine:
    """A folder with a Python, whose pip is a stand-in, and perhaps a uv."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.has("python", "python")
        self.has("uv", "uv-to-fetch")
        wheel = folder / "torch.whl"
        with wheel.open("wb") as file:
            file.truncate(2_340_000_000)  # sparse: it takes no room
        self.reports(wheel.as_uri())

    def has(self, name: str, file: str) -> None:
        path = self.folder / file
        path.write_text(STAND_IN.format(python=sys.executable, folder=str(self.folder), name=name))
        path.chmod(0o755)

    def reports(self, *urls: str) -> None:
        items = [{"download_info": {"url": url}} for url in urls]
        (self.folder / "report.json").write_text(json.dumps({"install": items}))

    def install(self, *works: str):
        (self.folder / "works").write_text("\n".join(works) or "nothing")
        done = subprocess.run(
            [sys.executable, str(TOOL), "9.9.9", "--python", str(self.folder / "python")],
            env={**os.environ, "PATH": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        calls = (self.folder / "calls").read_text().splitlines()
        return done.returncode, calls, done.stderr


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_torch_that_is_there_is_kept_in_silence(machine):
    assert machine.install(IMPORT) == (0, [IMPORT], "")


def test_the_configured_indexes_come_first(machine):
    machine.has("uv", "uv")
    status, calls, printed = machine.install(CPU_BUILD, WITH_UV, PLAIN)
    assert (status, len(calls)) == (0, 2)
    assert calls[1].endswith(CPU_BUILD)
    assert "CPU build of torch 9.9.9 in pip's indexes" in printed


def test_uv_is_asked_where_no_index_has_a_cpu_build(machine):
    machine.has("uv", "uv")
    status, calls, printed = machine.install(WITH_UV, PLAIN)
    assert (status, len(calls)) == (0, 3)
    assert calls[2].startswith("uv pip install")
    assert str(machine.folder / "python") in calls[2]
    assert calls[2].endswith(WITH_UV)
    assert "GB" not in printed


def test_a_missing_uv_is_fetched_into_a_folder_that_is_gone_afterwards(machine):
    status, calls, _ = machine.install(FETCH_UV, WITH_UV, PLAIN)
    assert (status, len(calls)) == (0, 4)
    assert calls[3].startswith("uv pip install")
    folder = calls[2].split("--target ")[1].split()[0]
    assert not Path(folder).exists()


def test_the_plain_release_is_the_last_resort_and_its_size_is_said_before(machine):
    status, calls, printed = machine.install(DRY_RUN, PLAIN)
    assert status == 0
    assert DRY_RUN in calls[-2]
    assert calls[-1].endswith(PLAIN[:-1])
    assert "no CPU build of torch 9.9.9 was found" in printed
    assert "2.34 GB in 1 files" in printed


def test_a_size_that_nobody_tells_keeps_nobody_from_installing(machine):
    machine.reports((machine.folder / "gone.whl").as_uri())
    status, _, printed = machine.install(DRY_RUN, PLAIN)
    assert status == 0
    assert "1 files of unknown size" in printed


def test_a_torch_that_cannot_be_had_is_an_error_that_shows_every_try(machine):
    machine.has("uv", "uv")
    status, _, printed = machine.install()
    assert status == 1
    for part in (CPU_BUILD, WITH_UV, PLAIN[:-1], "PIP_EXTRA_INDEX_URL"):
        assert part in printed
