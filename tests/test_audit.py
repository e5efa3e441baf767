"""tools/audit.py: what pip-audit says becomes a table and an exit code."""

import importlib.util
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

PATH = Path(__file__).parents[1] / "tools" / "audit.py"


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("audit_tool", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def installed(monkeypatch, tool):
    monkeypatch.setattr(tool.importlib.util, "find_spec", lambda name: name)

    def answers(stdout, stderr=""):
        done = SimpleNamespace(stdout=stdout, stderr=stderr)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)

    return answers


def test_known_faults_are_a_table_and_exit_code_1(tool, installed, capsys):
    fault = {"id": "PYSEC-1", "fix_versions": ["2.1"]}
    entries = [{"name": "a", "version": "2", "vulns": [fault]}, {"name": "b", "skip_reason": "x"}]
    installed(json.dumps({"dependencies": entries}))
    assert tool.audit() == 1
    said = capsys.readouterr().out
    assert "1 packages looked at, 1 skipped, 1 faults" in said
    assert "| a 2 | PYSEC-1 | 2.1 |" in said


def test_no_known_fault_is_exit_code_0(tool, installed):
    installed(json.dumps({"dependencies": [{"name": "a", "version": "2", "vulns": []}]}))
    assert tool.audit() == 0


def test_an_index_that_knows_no_package_is_said(tool, installed, capsys):
    installed(json.dumps({"dependencies": [{"name": "a", "skip_reason": "not on this index"}]}))
    assert tool.audit() == 0
    said = capsys.readouterr().out
    assert said == "not audited: every package was skipped (not on this index)\n"


def test_an_index_that_does_not_answer_is_said(tool, installed, capsys):
    installed("", "ConnectionError: no route")
    assert tool.audit() == 0
    assert "not audited: pip-audit failed (ConnectionError: no route)" in capsys.readouterr().out


def test_a_lack_of_pip_audit_is_said(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool.importlib.util, "find_spec", lambda name: None)
    assert tool.audit() == 0
    assert "pip-audit is not installed" in capsys.readouterr().out
