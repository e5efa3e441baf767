"""Check commit messages: `area: imperative` in at most 72 characters, and a body with the reason.

    python tools/commit_subjects.py FILE      a message in a file, as git's hook commit-msg has it
    python tools/commit_subjects.py RANGE     commits, such as main..HEAD; merges may say anything

Prints what each message breaks; exits with 1 if any does.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_SUBJECT = 72
MAX_BODY = 80
SUBJECT = re.compile(r"[a-z0-9][a-z0-9_./ -]*: [a-z]\S*( \S+)+")
LITERAL = re.compile(r"\s{4}|\S+$|[A-Z][A-Za-z-]+: ")  # quoted, one long word, a trailer


def broken(message: str) -> Iterator[str]:
    """Yield the rules that a message breaks, in words."""
    lines = [line for line in message.splitlines() if not line.startswith("#")]
    subject, body = (lines or [""])[0], lines[1:]
    if re.match(r"(Merge|Revert|fixup!|squash!) ?", subject):
        return
    if len(subject) > MAX_SUBJECT:
        yield f"subject must have at most {MAX_SUBJECT} characters, got {len(subject)}"
    if not SUBJECT.fullmatch(subject) or subject.endswith("."):
        yield "subject must read `area: imperative`, in lower case and without a full stop"
    if body and body[0]:
        yield "the second line must be empty"
    if not any(line.strip() for line in body):
        yield "the body must say the reason, got none"
    for line in body:
        if len(line) > MAX_BODY and not LITERAL.match(line):
            yield f"a line of the body must have at most {MAX_BODY} characters, got {len(line)}"


def messages(source: str) -> list[str]:
    """The message in a file, or those of a range of commits."""
    if Path(source).is_file():
        return [Path(source).read_text(encoding="utf-8")]
    command = ["git", "log", "--no-merges", "--format=%B%x00", source, "--"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [message for one in text.split("\0") if (message := one.strip())]


def main(source: str) -> int:
    """Return the exit status."""
    status = 0
    for message in messages(source):
        for rule in broken(message):
            subject = message.partition("\n")[0]
            print(f"{subject!r}: {rule}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
