"""Print what the wheel needs as a software bill of materials: CycloneDX 1.5, in JSON.

    python tools/sbom.py > spiketrain.cdx.json

Everything comes from the metadata of what is installed here; nothing is fetched. Components are the
base dependencies and theirs; extras are left out, as they are from a plain installation.
"""

import json
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "spiketrain"


def needs(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """What a distribution requires here, with some extras."""
    for line in metadata.requires(name) or ():
        requirement = Requirement(line)
        environments = [{"extra": extra} for extra in ("", *sorted(extras))]
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
            yield requirement


def closure(root: str) -> dict[str, list[str]]:
    """Name of each distribution that `root` needs, and of itself -> names that it needs."""
    graph: dict[str, list[str]] = {}
    waiting = [(canonicalize_name(root), frozenset[str]())]
    while waiting:
        name, extras = waiting.pop()
        found = list(needs(name, extras))
        before = graph.get(name)
        graph[name] = sorted({canonicalize_name(need.name) for need in found} | set(before or ()))
        if before is None or before != graph[name]:
            waiting += [(canonicalize_name(n.name), frozenset(n.extras)) for n in found]
    return graph


def component(name: str) -> dict[str, Any]:
    """A distribution as CycloneDX names it."""
    about = metadata.metadata(name)
    version = about["Version"]
    described: dict[str, Any] = {
        "type": "library",
        "bom-ref": reference(name),
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
    }
    if licence := about.get("License-Expression"):
        described["licenses"] = [{"expression": licence}]
    return described


def reference(name: str) -> str:
    """What the document calls a distribution."""
    return f"{name}@{metadata.version(name)}"


def document(root: str = ROOT) -> dict[str, Any]:
    """The whole document. Raises PackageNotFoundError if something needed is not installed."""
    graph = closure(root)
    top = component(root) | {"type": "application"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": top},
        "components": [component(name) for name in sorted(graph) if name != root],
        "dependencies": [
            {"ref": reference(name), "dependsOn": [reference(need) for need in graph[name]]}
            for name in sorted(graph)
        ],
    }


if __name__ == "__main__":
    try:
        print(json.dumps(document(), indent=2))
    except metadata.PackageNotFoundError as error:
        sys.exit(f"error: {error.name} must be installed to be listed")
