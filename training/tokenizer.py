"""Train a SentencePiece vocabulary on a corpus of documents."""

import tempfile
from pathlib import Path

import sentencepiece

from spiketrain.training.data import DOCUMENT_END, read_text

NEWLINES = ("\n\n", "\n")


def train_tokenizer(corpus: Path, target: Path, vocab_size: int, threads: int = 2) -> None:
    """Fit a unigram model with byte fallback on `corpus` and write it to `target`.

    Text survives a round trip exactly: no normalisation, no dummy prefix, newlines are pieces of
    their own.  `<|endoftext|>` is a control piece, id 1, and never comes out of plain text.
    Raises ValueError if the corpus is empty or vocab_size is out of reach for it.
    """
    text = read_text(corpus)
    if not text.strip():
        raise ValueError(f"corpus {corpus} has no text")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        lines = Path(folder, "lines.txt")
        lines.write_text(text.replace(DOCUMENT_END, ""), encoding="utf-8")
        try:
            sentencepiece.SentencePieceTrainer.train(
                input=str(lines),
                model_prefix=str(Path(folder, "tokenizer")),
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
            raise ValueError(f"vocab_size {vocab_size} does not fit {corpus}: {error}") from error
        Path(folder, "tokenizer.model").rename(target)
