"""What `import spiketrain` and `python -m spiketrain` give."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import spiketrain


def run(*arguments):
    """Exit code and output of a fresh interpreter."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout.strip(), done.stderr


def test_the_package_runs_as_a_module():
    code, out, _ = run("-m", "spiketrain", "--version")
    assert (code, out) == (0, f"spiketrain {version('spiketrain')}")
    code, out, errors = run("-m", "spiketrain", "sing")
    assert (code, out) == (2, "")
    assert "sing" in errors


def test_the_version_is_that_of_the_installation_and_costs_no_import():
    assert spiketrain.__version__ == version("spiketrain")
    script = (
        "import sys; before = set(sys.modules); import spiketrain;"
        "print('importlib.metadata' in sys.modules.keys() - before)"
    )
    assert run("-I", "-c", script)[:2] == (0, "False")


def test_dir_shows_the_public_names_and_no_import_of_its_own():
    names = dir(spiketrain)
    assert set(spiketrain.__all__) <= set(names)
    public = {name for name in names if not name.startswith("_")}
    assert public == {name for name in spiketrain.__all__ if not name.startswith("_")}
    assert {"__file__", "__path__", "__doc__"} <= set(names)


def test_every_public_name_is_there():
    for name in spiketrain.__all__:
        assert getattr(spiketrain, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'sing'"):
        spiketrain.sing  # noqa: B018
