"""Records of serving name their fields where they are built."""

import dataclasses
import importlib
import pkgutil

import spiketrain
from spiketrain import serving

MAX_POSITIONAL = 3


def records():
    """All dataclasses of serving that need no optional package."""
    for module in pkgutil.walk_packages(serving.__path__, "spiketrain.serving."):
        if not module.name.endswith((".lmdb_store", ".metrics")):
            kinds = vars(importlib.import_module(module.name)).values()
            classes = [kind for kind in kinds if isinstance(kind, type)]
            here = [kind for kind in classes if kind.__module__ == module.name]
            yield from filter(dataclasses.is_dataclass, here)


def test_a_record_takes_at_most_three_fields_by_position():
    kinds = list(records())
    assert {spiketrain.Request, spiketrain.Retry, spiketrain.Access} < set(kinds)
    for kind in kinds:
        positional = [field.name for field in dataclasses.fields(kind) if not field.kw_only]
        assert len(positional) <= MAX_POSITIONAL, (kind, positional)


def test_a_request_takes_its_prompt_by_position():
    request = spiketrain.Request("text", max_new_tokens=3)
    assert (request.prompt, request.max_new_tokens) == ("text", 3)
    assert spiketrain.Retry(2).attempts == 2
