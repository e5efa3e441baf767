"""A small corpus of tales that are one sentence, turned."""


def corpus_text(times):
    """Twelve documents, each `times` over, ended by lines <|endoftext|>."""
    words = "The hen and the fox went to the well, and saw the moon in it.".split()  # noqa: SIM905
    each = [" ".join(words[i:] + words[:i]) + f"\n\nEnd {i}.\n" for i in range(12)]
    return "".join(tale + "<|endoftext|>\n" for tale in each) * times
