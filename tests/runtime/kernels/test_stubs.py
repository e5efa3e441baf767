"""The stubs of compiled kernels: type checkers see the names and arguments that there are."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import spiketrain.runtime.kernels

KERNELS = Path(spiketrain.runtime.kernels.__file__).parent
STUBS = sorted(KERNELS.rglob("*.pyi"))


def arguments(function):
    return list(inspect.signature(function).parameters)


def stated(definition):
    return [argument.arg for argument in definition.args.args]


def module_of(path):
    return importlib.import_module(
        ".".join(["spiketrain.runtime.kernels", *path.relative_to(KERNELS).with_suffix("").parts])
    )


def test_every_compiled_module_has_a_stub():
    assert {path.with_suffix(".pyi") for path in KERNELS.rglob("*.pyx")} == set(STUBS)


@pytest.mark.parametrize("path", STUBS, ids=lambda path: path.stem)
def test_a_stub_states_what_its_module_has(path):
    module, tree = module_of(path), ast.parse(path.read_text())
    names = set()
    for node in tree.body:
        if isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
            assert stated(node) == arguments(getattr(module, node.name)), node.name
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
            check_class(getattr(module, node.name), node)
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (name.isupper() or getattr(value, "__module__", None) == module.__name__)
    }
    imported = {name.asname or name.name for node in ast.walk(tree) for name in aliases(node)}
    assert names == public - imported


def aliases(node):
    return node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else []


def check_class(kind, definition):
    stubs = {node.name: node for node in definition.body}
    for name, value in vars(kind).items():
        if not name.startswith("_"):
            assert name in stubs, f"{kind.__name__}.{name}"
            if callable(value):
                assert stated(stubs[name]) == arguments(value), name
