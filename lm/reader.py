"""Reader: a kind of checkpoint, how its files are recognised, and how its model is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from spiketrain.lm.imported import Imported
from spiketrain.lm.upstream_choices import UpstreamChoices


def _always(path: Path) -> bool:
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """How one kind of checkpoint is read.

    name: of the kind.  model_types: values of model_type in the config.json of a directory of this
    kind.  suffixes: of a file of this kind; `recognises` decides where several kinds share one, and
    where none recognises a file, the first with its suffix reads it and says what is lacking.
    taken: the fields of UpstreamChoices that say something about this kind.  read: path of the
    directory or file -> model in evaluation mode; raises ValueError.
    """

    name: str
    read: Callable[[Path, UpstreamChoices], Imported]
    model_types: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    recognises: Callable[[Path], bool] = _always
    taken: tuple[str, ...] = ()


class FamilyCheckpoints(Protocol):
    """The module lm.families.<name>.checkpoints: what a family adds to reading and converting.

    READERS: kinds of checkpoints of others that this family reads.  CONVERSION_CHOICES: options of
    a conversion that models of this family alone have.
    """

    READERS: tuple[Reader, ...]
    CONVERSION_CHOICES: frozenset[str]
