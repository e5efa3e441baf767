"""Sources of `--data`: a file, a folder of files, or a corpus with a name.

`wikitext2` is `$SPIKETRAIN_DATA/wikitext2/{train,valid,test}.txt`, plain or `.xz`, word level: its
lines end with a word of their own, `<eos>`, as the papers count.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from spiketrain.evaluation.corpus import Corpus, Document
from spiketrain.runtime.errors import DataError

WIKITEXT2 = "wikitext2"
SPLITS = ("test", "valid", "train")
ENDINGS = (".txt", ".txt.xz", ".jsonl", ".jsonl.xz")

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Source:
    """Documents of some files in order; iterate once.

    line_ends: whether the end of a line counts, and is to be predicted, as a word.
    """

    name: str
    files: tuple[Path, ...]
    form: str = "text"
    line_ends: bool = False
    on_progress: Progress | None = None
    _corpora: tuple[Corpus, ...] = ()

    def __iter__(self) -> Iterator[Document]:
        total = sum(file.stat().st_size for file in self.files if file.is_file())
        before = 0
        self._corpora = ()
        for file in self.files:
            corpus = Corpus(file, self._progress(before, total), self._form_of(file))
            self._corpora += (corpus,)
            yield from corpus
            before += file.stat().st_size

    @property
    def hash(self) -> str:
        """`sha256:` of the text read so far: of one file, or of the list of several files' own."""
        if len(self.files) == 1 and self._corpora:
            return self._corpora[0].hash
        lines = "".join(f"{corpus.hash} {corpus.path.name}\n" for corpus in self._corpora)
        return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"

    def _form_of(self, file: Path) -> str:
        return "jsonl" if ".jsonl" in file.suffixes[-2:] else self.form

    def _progress(self, before: int, total: int) -> Progress | None:
        report = self.on_progress
        return None if report is None else lambda done, _: report(before + done, total)


def open_source(data: str, split: str = "test", line_ends: bool | None = None) -> Source:
    """The source that `data` names; DataError says where files have to be."""
    if data == WIKITEXT2:
        ends = True if line_ends is None else line_ends
        return Source(f"wikitext2/{split}", (wikitext2_file(split),), "articles", ends)
    path = Path(data)
    if not path.exists():
        raise DataError(f"{data}: must be readable, a file, a folder or {WIKITEXT2}, is none")
    if not path.is_dir():
        return Source(data, (path,), line_ends=bool(line_ends))
    files = tuple(sorted(file for file in path.iterdir() if file.name.endswith(ENDINGS)))
    if not files:
        raise DataError(f"{path}: must have files {', '.join(ENDINGS)}, has none")
    return Source(data, files, line_ends=bool(line_ends))


def wikitext2_file(split: str) -> Path:
    """The file of one split of WikiText-2."""
    if split not in SPLITS:
        raise DataError(f"split must be one of {SPLITS}, got {split!r}")
    root = os.environ.get("SPIKETRAIN_DATA")
    if not root:
        raise DataError(
            "wikitext2 is looked up in $SPIKETRAIN_DATA/wikitext2, but SPIKETRAIN_DATA is not set: "
            "set it to a folder and put train.txt, valid.txt and test.txt (or .txt.xz) of the "
            "word-level WikiText-2 into its folder wikitext2"
        )
    folder = Path(root) / WIKITEXT2
    for name in (f"{split}.txt", f"{split}.txt.xz"):
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"{folder}: must hold {split}.txt or {split}.txt.xz of word-level WikiText-2, has neither"
    )
