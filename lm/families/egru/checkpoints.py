"""The published code's checkpoint of an EGRU: a file of tensors with config.yaml beside it."""

from pathlib import Path

from spiketrain.lm.checkpoint_files import CheckpointError, read_tensors
from spiketrain.lm.families.egru.upstream import from_upstream
from spiketrain.lm.imported import Imported
from spiketrain.lm.reader import Reader
from spiketrain.lm.upstream_choices import UpstreamChoices


def _settings_beside(path: Path) -> Path | None:
    names = (path.with_suffix(".config.yaml"), path.parent / "config.yaml")
    return next((name for name in names if name.is_file()), None)


def _has_settings(path: Path) -> bool:
    return _settings_beside(path) is not None


def _read(path: Path, choices: UpstreamChoices) -> Imported:
    settings = _settings_beside(path)
    if settings is None:
        raise CheckpointError(f"{path}: needs {path.stem}.config.yaml or config.yaml beside it")
    return Imported(from_upstream(read_tensors(path), settings.read_text("utf-8")).eval())


READERS = (
    Reader(name="official-egru", read=_read, suffixes=(".cpt", ".pt"), recognises=_has_settings),
)
CONVERSION_CHOICES = frozenset({"fold_projection"})
