"""Packages as NIR graphs (nir, HDF5): whole where every operation has a node, else in stretches.

A LIF unit of SpikeGPT is h = v + (s x - v) / tau, a spike where h >= threshold, then v = 0. NIR's
LIF, tau dv/dt = (v_leak - v) + r x with a spike where v > v_threshold and v = v_reset after it, is
the same with r = s, v_leak = v_reset = 0 and the float32 number below threshold as v_threshold, for
a simulator that takes one forward Euler step of 1 for each token.
"""

from __future__ import annotations

import io
from itertools import pairwise
from typing import TYPE_CHECKING

import nir
import numpy as np

from spiketrain.runtime.durable_files import replace_file
from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.formats import widened

if TYPE_CHECKING:
    from pathlib import Path

    from spiketrain.runtime.operation import Operation
    from spiketrain.runtime.package import Package

TIME = "one forward Euler step of 1 for each token"


def to_graph(
    package: Package, parts: bool
) -> tuple[nir.NIRGraph, list[list[Operation]], list[Operation]]:
    """The graph, its stretches, each with an input and an output of its own, and what has no node.

    SpiketrainError names the operations without a node, unless `parts` are asked for and the model
    has LIF units.
    """
    walk = list(package.spec.operations())
    lacking = [operation for operation in walk if operation.node is None]
    runs = stretches(walk)
    if lacking and not (parts and runs):
        raise SpiketrainError(_refusal(package, lacking, len(runs)))
    nodes: dict[str, nir.NIRNode] = {}
    edges: list[tuple[str, str]] = []
    for stretch in runs:
        chain = {_name(one): _node(package, one) for one in stretch}
        names = [f"input_{_name(stretch[0])}", *chain, f"output_{_name(stretch[-1])}"]
        nodes[names[0]] = nir.Input(input_type=chain[names[1]].input_type)
        nodes |= chain
        nodes[names[-1]] = nir.Output(output_type=chain[names[-2]].output_type)
        edges += pairwise(names)
    metadata = {
        "model_type": package.family,
        "fingerprint": package.fingerprint,
        "time": TIME,
        "complete": "no" if lacking else "yes",
    }
    return nir.NIRGraph(nodes, edges, metadata=metadata), runs, lacking


def stretches(walk: list[Operation]) -> list[list[Operation]]:
    """The longest runs of operations that have nodes, of those with neurons among them."""
    runs: list[list[Operation]] = [[]]
    for operation in walk:
        if operation.node is None:
            runs.append([])
        else:
            runs[-1].append(operation)
    return [run for run in runs if any(operation.node == "LIF" for operation in run)]


def _refusal(package: Package, lacking: list[Operation], num_stretches: int) -> str:
    """Each kind of operation without a node, and the first place that has it."""
    kinds: dict[str, str] = {}
    for operation in lacking:
        kinds.setdefault(operation.what, operation.place)
    named = "; ".join(f"{place}: {what}" for what, place in kinds.items())
    rest = f"--parts writes {num_stretches} stretches with its LIF units"
    return (
        f"{package.path}: NIR has no node for {len(lacking)} operations of this {package.family}, "
        f"as {named}; {rest if num_stretches else 'it has no LIF units to write in parts'}"
    )


def write_graph(graph: nir.NIRGraph, target: Path, force: bool) -> None:
    """One HDF5 file, whole or not at all; an existing one is replaced only with `force`."""
    if target.exists() and not force:
        raise SpiketrainError(f"{target}: must not exist, or be replaced with --force")
    content = io.BytesIO()  # HDF5 does not say why it cannot write to a file
    nir.write(content, graph)
    replace_file(target, content.getvalue())


def _name(operation: Operation) -> str:
    """A name without dots, which modules of torch could not bear."""
    return operation.place.replace(".", "_")


def _node(package: Package, operation: Operation) -> nir.NIRNode:
    place, tensors = operation.place, package.tensors
    if operation.node == "LIF":
        threshold = np.array(tensors[f"{place}.threshold"], np.float32)
        return nir.LIF(
            tau=np.full_like(threshold, operation.tau),
            r=np.array(tensors[f"{place}.scale"], np.float32),
            v_leak=np.zeros_like(threshold),
            v_threshold=np.nextafter(threshold, np.float32(-np.inf)),
            v_reset=np.zeros_like(threshold),
        )
    weight = np.ascontiguousarray(widened(tensors[f"{place}.weight"]).T)
    if operation.node == "Affine":
        return nir.Affine(weight=weight, bias=np.array(tensors[f"{place}.bias"]))
    return nir.Linear(weight=weight)
