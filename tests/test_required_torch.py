"""Where torch is required, a test that went without it fails the run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import sys
import pytest

sys.modules["torch"] = None

def test_with_torch():
    pytest.importorskip("torch")

def test_without():
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize(("required", "status"), [("", 0), ("1", 1)])
def test_a_skip_for_want_of_torch_fails_where_torch_is_required(tmp_path, required, status):
    shutil.copy(Path(__file__).parent / "conftest.py", tmp_path)
    (tmp_path / "test_suite.py").write_text(SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "SPIKETRAIN_REQUIRE_TORCH": required},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "1 passed, 1 skipped" in done.stdout
    assert ("torch is required" in done.stdout) == bool(required)
