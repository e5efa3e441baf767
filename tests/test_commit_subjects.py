"""Commit messages are `area: imperative`, with the reason in the body."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "commit_subjects.py"
REASON = "\n\nA value that does not fit was cut off in silence."


def check(source, folder):
    command = [sys.executable, str(TOOL), str(source)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        ("Refuse integers that do not fit" + REASON, "subject must read"),
        ("serving: Refuse integers that do not fit" + REASON, "subject must read"),
        ("serving: refuse integers that do not fit." + REASON, "subject must read"),
        ("serving: " + "refuse " * 10 + "them" + REASON, "at most 72 characters, got 83"),
        ("serving: refuse integers that do not fit", "the body must say the reason"),
        ("serving: refuse integers\nthat do not fit" + REASON, "second line must be empty"),
        ("serving: refuse integers\n\n" + "a word " * 12, "at most 80 characters, got 84"),
        ("", "subject must read"),
    ],
)
def test_a_message_that_breaks_a_rule_is_refused_with_the_rule(tmp_path, message, rule):
    (tmp_path / "message").write_text(message or "\n")
    done = check(tmp_path / "message", tmp_path)
    assert done.returncode == 1
    assert rule in done.stderr


@pytest.mark.parametrize(
    "message",
    [
        "serving: refuse integers that do not fit" + REASON,
        "runtime/kernels: split rows by threads" + REASON + "\n# a comment of git's " + "x" * 80,
        "docs: link a page\n\n    " + "quoted " * 20,
        "Merge branch 'sessions'",
    ],
)
def test_a_message_that_keeps_the_rules_passes_in_silence(tmp_path, message):
    (tmp_path / "message").write_text(message)
    done = check(tmp_path / "message", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_commits_of_a_range_are_checked(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *identity, *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    git("init", "--quiet", ".")
    git("commit", "--allow-empty", "--quiet", "--message", "an old message")
    git("commit", "--allow-empty", "--quiet", "--message", "lm: say why" + REASON)
    assert check("HEAD~1..HEAD", tmp_path).returncode == 0
    git("commit", "--allow-empty", "--quiet", "--message", "Say nothing")
    done = check("HEAD~2..HEAD", tmp_path)
    assert done.returncode == 1
    assert "'Say nothing': the body must say the reason" in done.stderr
    assert "an old message" not in done.stderr
