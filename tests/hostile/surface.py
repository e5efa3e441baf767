"""Surface: one place where what others wrote comes in, and what may come of it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import Protocol

Call = Callable[[bytes], object]


class Module(Protocol):
    """A module of `surfaces`.

    TARGET: inputs that a full campaign tries. BATCH: inputs of one worker. NEEDS: packages beyond
    NumPy. prepare(folder): what `make` and `open_calls` share, made once, without any thread.
    make(chance, seeds): one input. open_calls(seeds): within a worker, gives a function that takes
    an input; it returns or raises one of allowed() where the input is dealt with as documented.
    """

    TARGET: int
    BATCH: int
    NEEDS: tuple[str, ...]
    prepare: Callable
    make: Callable[[Random, object], bytes]
    open_calls: Callable[[object], AbstractContextManager[Call]]
    allowed: Callable[[], tuple[type[BaseException], ...]]


@dataclass(frozen=True, slots=True)
class Surface:
    """A module of `surfaces` that is ready: its name and what it prepared."""

    name: str
    module: Module
    seeds: object

    def inputs(self, seed: int, start: int, count: int) -> list[bytes]:
        """Inputs number start to start + count of a campaign; always the same ones."""
        chance = Random(f"{seed} {self.name} {start}")
        return [self.module.make(chance, self.seeds) for _ in range(count)]
