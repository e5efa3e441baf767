"""The published SpikingBrain directories, read whole; lm.streaming reads them part by part."""

from pathlib import Path

from spiketrain.lm.checkpoint_files import read_settings
from spiketrain.lm.families.spikingbrain.upstream import MODEL_TYPE, from_upstream
from spiketrain.lm.imported import Imported
from spiketrain.lm.reader import Reader
from spiketrain.lm.shards import Shards
from spiketrain.lm.upstream_choices import UpstreamChoices


def _read(path: Path, choices: UpstreamChoices) -> Imported:
    settings = read_settings(path)
    return from_upstream(Shards(path), settings, choices.window_keys, choices.down_proj)


READERS = (
    Reader(
        name="published-spikingbrain",
        read=_read,
        model_types=(MODEL_TYPE,),
        taken=("window_keys", "down_proj"),
    ),
)
CONVERSION_CHOICES = frozenset({"target_sparsity", "window_cache"})
