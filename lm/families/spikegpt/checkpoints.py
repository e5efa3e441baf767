"""Checkpoints of the published SpikeGPT and of RWKV-4: official files, Hugging Face directories."""

from pathlib import Path

from spiketrain.lm.checkpoint_files import CheckpointError, read_settings, read_shards, read_tensors
from spiketrain.lm.families.spikegpt.upstream import from_hugging_face, from_upstream, is_upstream
from spiketrain.lm.imported import Imported
from spiketrain.lm.reader import Reader
from spiketrain.lm.upstream_choices import UpstreamChoices


def _is_official(path: Path) -> bool:
    return path.suffix == ".pth" or is_upstream(read_tensors(path))


def _read_official(path: Path, choices: UpstreamChoices) -> Imported:
    tensors = read_tensors(path)
    if not is_upstream(tensors):
        raise CheckpointError(
            f"{path}: emb.weight and ln_out.weight are missing, so it is neither SpikeGPT "
            "nor RWKV-4"
        )
    return from_upstream(tensors, choices.semantics or "spikegpt", choices.choices)


def _read_directory(path: Path, choices: UpstreamChoices) -> Imported:
    settings = read_settings(path)
    return from_hugging_face(read_shards(path), settings, choices.rescaled)


READERS = (
    Reader(
        name="official-spikegpt",
        read=_read_official,
        suffixes=(".pth", ".cpt", ".pt"),
        recognises=_is_official,
        taken=("semantics", "choices"),
    ),
    Reader(name="rwkv4", read=_read_directory, model_types=("rwkv",), taken=("rescaled",)),
)
CONVERSION_CHOICES: frozenset[str] = frozenset()
