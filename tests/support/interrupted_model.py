"""A model that is interrupted, and a text with documents of several sizes."""

from pathlib import Path

WIKITEXT = Path(__file__).parent.parent / "data" / "wikitext2" / "test.txt"
PROTOCOLS = {
    "carry": {"prefix": 256, "warmup": 3},
    "egru-published": {},
    "rolling": {"prefix": 256, "ctx": 60},
    "stride": {"ctx": 120, "stride": 90},
    "half-window": {"ctx": 200},
}


class Interrupted:
    """A model that gives up at its nth call."""

    def __init__(self, model, calls):
        self._model, self._calls = model, calls

    @property
    def __class__(self):
        """That of the model, so that `isinstance` takes one for the other."""
        return type(self._model)

    def __getattr__(self, name):
        return getattr(self._model, name)

    def forward(self, *arguments, **options):
        self._count()
        return self._model.forward(*arguments, **options)

    def step(self, *arguments):
        self._count()
        return self._model.step(*arguments)

    def _count(self):
        self._calls -= 1
        if self._calls < 0:
            raise KeyboardInterrupt


def write_documents(path):
    """Some paragraphs as documents, an empty one and a last one without an end."""
    parts = WIKITEXT.read_text("utf-8")[:2500].split(" \n \n")
    path.write_text("\n<|endoftext|>\n".join([*parts, "", "last"]), encoding="utf-8")
    return path
