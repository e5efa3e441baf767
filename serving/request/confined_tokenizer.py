"""A tokenizer that encodes in a process with limits, if a text may drive up its work."""

import array
import functools
from typing import TypeGuard

from spiketrain.runtime.errors import TokenizerError
from spiketrain.runtime.tokenizer import Tokenizer as RuntimeTokenizer
from spiketrain.serving.isolation.confined_process import Limits, Refused
from spiketrain.serving.isolation.confinement import Confinement, Died
from spiketrain.serving.model import Tokenizer

ENCODING = Limits(cpu_s=5.0, wall_s=20.0, memory_bytes=1 << 30)


def confined(tokenizer: Tokenizer | None) -> tuple[Tokenizer | None, Confinement | None]:
    """The tokenizer to use for texts of clients, and what has to be closed then.

    It is the same one where its work is in proportion to a text, or where there is none.
    """
    if not is_confined(tokenizer):
        return tokenizer, None
    from spiketrain.serving.request import encoding

    setup = functools.partial(encoding.setup_of, tokenizer.kind, tokenizer.source)
    confinement = Confinement(encoding, setup, ENCODING)

    def encode(text: str) -> list[int]:
        try:
            answer = confinement.ask(text.encode())
        except Refused as refusal:
            raise TokenizerError(str(refusal)) from None
        except Died as error:
            rule = "be one that the tokenizer encodes"
            raise TokenizerError(f"text must {rule}, it {error}") from None
        return array.array("I", answer).tolist()

    return tokenizer.encoding_with(encode), confinement


def is_confined(tokenizer: Tokenizer | None) -> TypeGuard[RuntimeTokenizer]:
    """Whether encoding a text waits for another process."""
    return isinstance(tokenizer, RuntimeTokenizer) and tokenizer.unbounded is not None
