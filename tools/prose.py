"""List sentences that break the rules of docs/style.md: too long, or begun by a pronoun.

Usage: python tools/prose.py [FILE ...]; without files, the README, CONTRIBUTING.md and docs/*.md.
Exit code 1 if a sentence breaks a rule.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

MAX_WORDS = 25
PRONOUNS = ("It", "This", "That", "One", "Those", "Such", "Who")
ROOT = Path(__file__).parent.parent

_CODE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
_INLINE_CODE = re.compile(r"`[^`]+`")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_NOT_PROSE = re.compile(r"^\s*(#|\||!\[)")
_ITEM = re.compile(r"^\s*([-*]|\d+\.)\s+")
_END = re.compile(r"(?<=[.!?])\)?\**\s+(?=[\"“(*]*[A-Z`0-9\[])")
_WORD = re.compile(r"[^\W_]")


class Fault(NamedTuple):
    """A sentence that breaks a rule; `line` is where its paragraph begins, from 1."""

    line: int
    rule: str
    sentence: str


def documents() -> list[Path]:
    """The documents that the rules hold for."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def faults(text: str) -> list[Fault]:
    """The sentences of a Markdown document that break a rule, in order.

    An inline code counts as one word, and a link as its text.
    """
    return [
        Fault(line, rule, sentence)
        for line, paragraph in _paragraphs(text)
        for part in _END.split(_INLINE_CODE.sub("`code`", paragraph))
        if (sentence := _LINK.sub(r"\1", part)) and (rule := _broken_rule(sentence))
    ]


def _broken_rule(sentence: str) -> str:
    words = [word for word in sentence.split() if _WORD.search(word)]
    if len(words) > MAX_WORDS:
        return f"has {len(words)} words, more than {MAX_WORDS}"
    if words and words[0].strip('*"“(,;:') in PRONOUNS:
        return f"begins with {words[0]}"
    return ""


def _paragraphs(text: str) -> list[tuple[int, str]]:
    """(first line, text) of each paragraph and list item; no code, heading, table or picture."""
    paragraphs: list[tuple[int, str]] = []
    open_paragraph = False
    text = _CODE.sub(lambda code: "\n" * code[0].count("\n"), text)
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or _NOT_PROSE.match(line):
            open_paragraph = False
        elif open_paragraph and not _ITEM.match(line):
            first, before = paragraphs[-1]
            paragraphs[-1] = (first, f"{before} {line.strip()}")
        else:
            paragraphs.append((number, _ITEM.sub("", line).strip()))
            open_paragraph = True
    return paragraphs


def main(arguments: list[str]) -> int:
    """Print the faults of the files, and return the exit code."""
    code = 0
    for path in [Path(argument) for argument in arguments] or documents():
        for fault in faults(path.read_text(encoding="utf-8")):
            print(f"{path}:{fault.line}: {fault.rule}: {fault.sentence}")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
