"""What an installation holds and asks for; `make smoke` installs one and runs it."""

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

import spiketrain.v1.generation_pb2 as pb

TOOLS = Path(__file__).parent.parent / "tools"


def tool(name: str, *arguments: str) -> list[str]:
    """Return the lines that a script of `tools/` prints."""
    command = [sys.executable, str(TOOLS / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def base_dependencies() -> dict[str, Requirement]:
    found = (Requirement(line) for line in requires("spiketrain"))
    return {r.name: r for r in found if not (r.marker and "extra" in str(r.marker))}


def least(requirement: Requirement) -> Version:
    (bound,) = (s.version for s in requirement.specifier if s.operator in (">=", "=="))
    return Version(bound)


def test_a_server_is_installed_without_torch():
    assert not base_dependencies().keys() & {"torch", "transformers", "accelerate"}


def test_grpcio_is_at_least_what_the_stubs_were_generated_with():
    (pin,) = (r for r in map(Requirement, tool("build_requires.py")) if r.name == "grpcio-tools")
    dependencies = base_dependencies()
    for name in ("grpcio", "grpcio-health-checking", "grpcio-reflection", "grpcio-status"):
        assert least(dependencies[name]) >= least(pin), name


def test_protobuf_is_at_least_what_the_stubs_were_generated_with():
    generated = Path(pb.__file__).read_text(encoding="utf-8")
    version = re.search(r"^# Protobuf Python Version: (\S+)$", generated, re.MULTILINE)
    assert version, "the stubs no longer name their protobuf version"
    assert least(base_dependencies()["protobuf"]) >= Version(version[1])


def test_what_only_the_build_needs_is_not_installed(tmp_path):
    for name in ("kernels/gather.pyx", "kernels/rows.h", "kernels/meson.build", "model.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "kernels" / "__pycache__").mkdir()
    assert tool("not_installed.py", str(tmp_path)) == [
        "kernels/__pycache__/",
        "kernels/gather.pyx",
        "kernels/meson.build",
        "kernels/rows.h",
    ]


def test_the_bill_of_materials_names_every_base_dependency_with_its_version():
    document = json.loads("\n".join(tool("sbom.py")))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    components = {entry["name"]: entry for entry in document["components"]}
    here = {name for name, r in base_dependencies().items() if not r.marker or r.marker.evaluate()}
    assert here <= components.keys()
    assert not components.keys() & {"torch", "pytest"}
    assert all(entry["purl"].endswith(f"@{entry['version']}") for entry in components.values())
    known = {entry["bom-ref"] for entry in document["components"]}
    (top,) = (d for d in document["dependencies"] if d["ref"].startswith("spiketrain@"))
    assert len(top["dependsOn"]) == len(here)
    assert set(top["dependsOn"]) <= known


def test_links_to_the_parts_are_made_again_where_an_archive_has_lost_them(tmp_path):
    root = TOOLS.parent
    parts = sorted(link.name for link in (root / "spiketrain").iterdir() if link.is_symlink())
    assert parts == ["lm", "runtime", "serving", "training"]
    for folder in ("spiketrain", "tools", *parts):
        (tmp_path / folder).mkdir()
    script = shutil.copy(TOOLS / "link_parts.py", tmp_path / "tools")
    for _ in range(2):  # the second time, all are there
        subprocess.run([sys.executable, script], check=True)
        assert [(tmp_path / "spiketrain" / part).readlink() for part in parts] == [
            Path("..") / part for part in parts
        ]
    (tmp_path / "spiketrain" / "lm").unlink()
    (tmp_path / "spiketrain" / "lm").mkdir()
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "must be a link" in done.stderr
