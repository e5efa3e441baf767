"""Train a SentencePiece vocabulary on a corpus of documents."""

import io
from pathlib import Path
from typing import IO

import sentencepiece

from spiketrain.runtime.draft_folder import draft_folder
from spiketrain.runtime.durable_files import replace_file
from spiketrain.runtime.errors import DataError, WriteError
from spiketrain.training.data import DOCUMENT_END, read_text

NEWLINES = ("\n\n", "\n")


def train_tokenizer(corpus: Path, target: Path, vocab_size: int, threads: int = 2) -> None:
    """Fit a unigram model with byte fallback on `corpus` and write it to `target`.

    Text survives a round trip exactly: no normalisation, no dummy prefix, newlines are pieces of
    their own.  `<|endoftext|>` is a control piece, id 1, and never comes out of plain text.
    Raises DataError if the corpus is empty or vocab_size is out of reach for it, and WriteError.
    """
    text = read_text(corpus)
    if not text.strip():
        raise DataError(f"{corpus}: must have text, is empty")
    trained = io.BytesIO()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with draft_folder(target) as folder:
            lines = folder / "lines.txt"
            lines.write_text(text.replace(DOCUMENT_END, ""), encoding="utf-8")
            _fit(lines, corpus, trained, vocab_size, threads)
    except OSError as error:
        raise WriteError.of(target, error) from error
    replace_file(target, trained.getvalue())


def _fit(lines: Path, corpus: Path, trained: IO[bytes], vocab_size: int, threads: int) -> None:
    """Fit a model on the lines of a file and write it to the stream `trained`."""
    try:
        sentencepiece.SentencePieceTrainer.train(
            input=str(lines),
            model_writer=trained,
            vocab_size=vocab_size,
            model_type="unigram",
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            byte_fallback=True,
            character_coverage=0.9999,
            max_sentence_length=1 << 16,
            user_defined_symbols=list(NEWLINES),
            unk_id=0,
            eos_id=1,
            eos_piece=DOCUMENT_END,
            bos_id=-1,
            pad_id=-1,
            num_threads=threads,
            minloglevel=1,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2]  # without the place in the library's source
        raise DataError(
            f"data.vocab_size must fit the text of {corpus}, got {vocab_size}: {reason}"
        ) from error
