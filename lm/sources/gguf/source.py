"""A GGUF file as a source of conversion: config, tensors, tokenizer and provenance.

Tensors have Hugging Face's names, shapes and order of rows.  llama.cpp rotates neighbouring
channels in `llama` files, so their rows of q and k are stored in another order; rows are put back
whole, with their codes and scales.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from spiketrain.lm.sources.gguf.architecture import check_quantization, transformer_settings
from spiketrain.lm.sources.gguf.blocks import Codes
from spiketrain.lm.sources.gguf.container import Container, read_container
from spiketrain.lm.sources.gguf.error import GgufError, Unquoted
from spiketrain.lm.sources.gguf.layout import Place, layout
from spiketrain.lm.sources.gguf.provenance import provenance
from spiketrain.lm.sources.gguf.tokenizer import Vocabulary, read_vocabulary, tokenizer_files
from spiketrain.lm.sources.gguf.tokenizer.files import chat_templates

_CHUNK_BYTES = 1 << 22


class Source:
    """An opened GGUF file; every method that reads raises GgufError.

    config: fields of a Hugging Face config.json, a dict for `transformer_config`.
    shapes: Hugging Face name -> shape of every tensor, in the network's order.
    formats: Hugging Face name -> name of the tensor's type, such as "Q4_1".
    provenance: texts such as "name" and "license" that the file states.
    notes: whole sentences for the user about what the file leaves open.

    The file is opened anew for each tensor, so nothing has to be closed.  A file that changes in
    between is refused.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        check_quantization(container)
        self.config: dict[str, Any] = transformer_settings(container)
        self._places: dict[str, Place] = layout(container, self.config)
        self._vocabulary: Vocabulary = read_vocabulary(
            container.metadata, self.config["vocab_size"]
        )
        self._templates = chat_templates(container.metadata)
        self.provenance: dict[str, str] = provenance(container.metadata)
        self.notes: tuple[str, ...] = tuple(_notes(self._vocabulary, self._unread()))

    @property
    def file(self) -> Path:
        """The path of the file."""
        return self._container.file

    @property
    def files(self) -> tuple[Path, ...]:
        """The path of the file, the only one: files of several parts are refused."""
        return (self.file,)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Hugging Face name -> shape, in the network's order."""
        return MappingProxyType({name: place.entry.shape for name, place in self._places.items()})

    @cached_property
    def formats(self) -> Mapping[str, str]:
        """Hugging Face name -> name of the tensor's type."""
        types = {name: place.entry.format.name for name, place in self._places.items()}
        return MappingProxyType(types)

    @cached_property
    def quantization(self) -> Mapping[str, int]:
        """Name of a tensor type -> elements of the file that have it, most first."""
        counts: Counter[str] = Counter()
        for place in self._places.values():
            counts[place.entry.format.name] += int(np.prod(place.entry.shape, dtype=object))
        return MappingProxyType(dict(counts.most_common()))

    def tensors(self) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        """Name and values in float32 of every tensor, one at a time."""
        for name in self._places:
            yield name, self.read(name)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[np.float32]:
        """Rows `start` to `stop` of a tensor in float32, shape (stop - start, ...)."""
        place = self._places[name]
        rows = self._rows(place, start, stop)
        values = place.entry.format.values(rows)
        return values.reshape(len(rows), *place.entry.shape[1:])

    def exact(self, name: str, start: int = 0, stop: int | None = None) -> Codes | None:
        """Rows `start` to `stop` as the file's own codes; None for a tensor of floats.

        `Codes.values()` has the same bits as `read`.
        """
        place = self._places[name]
        if place.entry.format.group is None:
            return None
        return place.entry.format.codes(self._rows(place, start, stop))

    def check_values(self) -> None:
        """Read every tensor's floats and scales once.  Raises GgufError if one is not finite.

        `read` and `exact` check as well; this is for a check before the work begins.  Memory: some
        MiB.
        """
        for place in self._places.values():
            rows = place.entry.rows
            step = max(1, _CHUNK_BYTES * rows // place.entry.num_bytes)
            for start in range(0, rows, step):
                self._stored_rows(place, start, min(start + step, rows))

    def tokenizer_files(self) -> dict[str, str]:
        """Name -> text of tokenizer.json, tokenizer_config.json and generation_config.json.

        The second holds the chat template, the third where a text begins and ends.
        """
        length = self.config["max_position_embeddings"]
        return tokenizer_files(self._vocabulary, self._templates, length)

    def summary(self) -> str:
        """Lines about the file: network, size, tensor types, tokenizer, origin."""
        config, counts = self.config, self.quantization
        total = sum(counts.values())
        types = ", ".join(f"{name} {100 * count / total:.1f} %" for name, count in counts.items())
        vocabulary = self._vocabulary
        split = f", splits {vocabulary.split_name}" if vocabulary.split_name else ""
        lines = [
            f"GGUF version {self._container.version}, {config['model_type']}",
            f"{config['num_hidden_layers']} layers, hidden size {config['hidden_size']}, "
            f"{total:,} parameters",
            f"types of elements: {types}{self._file_type()}",
            f"tokenizer: {vocabulary.model}{split}, {len(vocabulary.tokens):,} tokens",
            *(f"{key}: {text}" for key, text in self.provenance.items()),
        ]
        return "\n".join(lines)

    def _file_type(self) -> str:
        """What the file calls its mixture of types, a number."""
        key, metadata = "general.file_type", self._container.metadata
        return f" ({key} {metadata.integer(key)})" if key in metadata else ""

    def _unread(self) -> list[str]:
        """Keys of the architecture that played no part."""
        return self._container.metadata.unread(f"{self.config['model_type']}.")

    def _rows(self, place: Place, start: int, stop: int | None) -> npt.NDArray[np.uint8]:
        """Bytes of rows in the network's order."""
        start, stop, _ = slice(start, stop).indices(place.entry.rows)
        stop = max(start, stop)
        width = place.interleaved
        if not width or start == stop:
            return self._stored_rows(place, start, stop)
        first = start // width * width
        heads = self._stored_rows(place, first, -(-stop // width) * width)
        pairs = heads.reshape(-1, width // 2, 2, heads.shape[1])
        ordered = pairs.swapaxes(1, 2).reshape(heads.shape)
        return ordered[start - first : stop - first]

    def _stored_rows(self, place: Place, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Bytes of rows in the file's order, with finite floats or scales."""
        rows = self._container.rows(place.entry, start, stop)
        if not place.entry.format.finite(rows):
            what = Unquoted("a value or scale that is infinite or not a number")
            raise GgufError(self.file, place.entry.name, "be finite", what)
        return rows


def open_gguf(path: str | os.PathLike[str]) -> Source:
    """The GGUF file at `path`, with all that its keys and shapes say checked.

    Tensors are read later, by `Source.read` and its like; `Source.check_values` reads all of them
    once.  Raises GgufError, a SpiketrainError, naming file, key or tensor, rule and value.
    """
    return Source(read_container(path))


def _notes(vocabulary: Vocabulary, unread: list[str]) -> Iterator[str]:
    if vocabulary.split_name == "default":
        yield (
            "The file does not name its model's pre-tokenizer (tokenizer.ggml.pre). Texts are "
            "split as llama.cpp splits them, which may differ from the training of the model."
        )
    for key in unread:
        yield f"The key {key} is not read. The model may compute something else than its source."
