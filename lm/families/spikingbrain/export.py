"""SpikingBrain -> config and tensors of the runtime package, a file's worth at a time.

The source is a model in memory or the shards of a directory that need not fit memory: a matrix is
read and quantised in blocks of outputs.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiketrain.lm.families.spikingbrain.config import Config
from spiketrain.lm.families.spikingbrain.formats import (
    MOST_CODE,
    Formats,
    Stored,
    quantize,
    stored_int8,
)
from spiketrain.lm.families.spikingbrain.model import Model
from spiketrain.lm.keys import finite
from spiketrain.lm.quantize import bits_of_bfloat16, quantize_int8
from spiketrain.lm.shards import Held, Shards
from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.families.spikingbrain.packing import LEAST_K
from spiketrain.runtime.families.spikingbrain.spec import MOST_K, Spec

WEIGHT_FORMATS = ("float32", "bfloat16", "int8", "int4")
BLOCK_BYTES = 128 << 20  # of float32 weights that are quantised at once
_STEP = 128  # blocks of outputs start at whole groups of int4-go
_FIELDS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "intermediate_size", "norm_eps", "sliding_window",
    "window_keys", "attn_layers", "full_attn_layers", "parallel", "rope_theta", "rotary_scaling",
    "max_position_embeddings", "qk_norm", "gate", "gate_rank", "gate_logit_normalizer",
    "feature_map", "num_sink_tokens", "num_experts", "num_shared_experts",
    "moe_intermediate_size", "dense_layers", "spikes", "attention_spikes", "down_proj",
)  # fmt: skip

Arrays = dict[str, np.ndarray]


def to_runtime(
    model: Model,
    weights: str,
    head: str | None = None,
    codes: Mapping[str, Stored] | None = None,
) -> tuple[dict[str, Any], Arrays]:
    """Config and tensors of the runtime package, all weights input-major.

    weights: of WEIGHT_FORMATS; head: the head's, the same unless told.  A model whose weights are
    quantised already keeps its codes and scales with int8.  codes: see Exporter.
    """
    exporter = Exporter(model.config, Held(model.state_dict()), weights, head, codes)
    tensors: Arrays = {}
    for part in exporter.parts:
        tensors |= exporter.tensors(part)
    return exporter.package_config(), tensors


class Exporter:
    """What a package says and holds, part by part: the embedding, each layer, the head.

    codes: name of a matrix -> its stored tensors, where they were chosen better than by rounding.
    """

    def __init__(
        self,
        config: Config,
        source: Shards | Held,
        weights: str,
        head: str | None = None,
        codes: Mapping[str, Stored] | None = None,
    ) -> None:
        self.config, self.source = config, source
        self.codes = codes or {}
        self.block_bytes = BLOCK_BYTES
        self.window_cache = "int8" if config.attention_spikes else "float32"
        self.max_dial: float | None = None
        self.rounds = weights == "bfloat16" and not source.half_precision
        self.formats = Formats.of(config, weights, head)
        self.corrections: dict[str, int] = {}
        self.dead = False
        layers = [f"layers.{i}" for i in range(config.num_hidden_layers)]
        self.parts = ("embeddings", *layers, "head")

    def tensors(self, part: str) -> Arrays:
        """The tensors of one of `parts` under their names in the package."""
        found: Stored = {}
        if part == "embeddings":
            self._embedding(found)
        elif part == "head":
            self._vector(found, "norm.weight")
            self._matrix(found, "lm_head", self.formats.head, "lm_head")
        else:
            self._layer(found, int(part.rpartition(".")[2]))
        for name in found:
            if name.endswith(".extra"):
                self.corrections[name.removesuffix(".extra")] = found[name].numel()
        return {name: value.contiguous().numpy() for name, value in found.items()}

    def remember(self, part: Mapping[str, np.ndarray]) -> None:
        """Take note of a part that an earlier run made."""
        for name, value in part.items():
            if name.endswith(".extra"):
                self.corrections[name.removesuffix(".extra")] = value.size
            if name.endswith("spikes") and value[1] > 0:
                self.dead = True

    def part_bytes(self, part: str) -> int:
        """Bytes that `tensors` of this part has, corrections aside; ValueError as from Spec."""
        prefixes = {"head": ("norm.", "lm_head.")}.get(part, (f"{part}.",))
        return sum(
            np.dtype(dtype).itemsize * math.prod(shape)
            for name, (dtype, shape) in Spec.from_config(self.package_config()).tensors().items()
            if name.startswith(prefixes)
        )

    def working_bytes(self, part: str) -> int:
        """What making a part takes beside its tensors: stored codes are read a matrix at a time."""
        if part in ("embeddings", "head") or not self.formats.body.startswith("int8-gi"):
            return 0
        return 16 * max(size for _, size in self._sizes(part))

    def _sizes(self, part: str) -> list[tuple[str, int]]:
        """Tensors of the source that a part is made of, with their elements."""
        prefix = {"embeddings": "model.embeddings.", "head": "lm_head."}.get(part, f"model.{part}.")
        entries = self.source.items()
        return [(name, math.prod(e.shape)) for name, e in entries if name.startswith(prefix)]

    def package_config(self) -> dict[str, Any]:
        """config.json; to be asked for when all parts are made."""
        fidelity = "weight-only" if self.rounds else self.formats.fidelity
        fidelity = "approximate" if self.dead else fidelity
        fields = {name: getattr(self.config, name) for name in _FIELDS}
        fields = {name: value for name, value in fields.items() if value is not None}
        dial = {} if self.max_dial is None else {"max_dial": self.max_dial}
        return {
            "model_type": "spikingbrain",
            "architectures": ["SpikingBrainForCausalLM"],
            **fields,
            "tie_word_embeddings": False,
            "window_cache": self.window_cache,
            "corrections": dict(sorted(self.corrections.items())),
            "spiketrain": {
                "format_version": 1,
                "weights": self.formats.classes,
                "events": self.formats.events,
                "fidelity": fidelity,
                **dial,
            },
        }

    def _embedding(self, found: Stored) -> None:
        """Rows by token."""
        name, form = "model.embeddings.weight", self.formats.embedding
        rows, width = self.source[name].shape
        dtype = {"float32": torch.float32, "bfloat16": torch.uint16, "int8": torch.int8}[form]
        whole = torch.empty(rows, width, dtype=dtype)
        scale = torch.empty(rows)
        for start, stop in self._blocks(rows, width):
            block = self._read(name, start, stop)
            if form == "int8":
                whole[start:stop], scale[start:stop] = quantize_int8(block, dim=1)
            else:
                whole[start:stop] = block if form == "float32" else bits_of_bfloat16(block)
        found["embeddings.weight"] = whole
        if form == "int8":
            found["embeddings.scale"] = scale

    def _layer(self, found: Stored, i: int) -> None:
        config, attn, mlp = self.config, f"layers.{i}.attn", f"layers.{i}.mlp"
        for name in ("attn_norm", "mlp_norm"):
            self._vector(found, f"layers.{i}.{name}.weight")
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            self._matrix(found, f"{attn}.{name}", self.formats.body)
            if name != "o_proj":
                self._vector(found, f"{attn}.{name}.bias")
        for name in ("q_norm", "k_norm") if config.qk_norm else ():
            self._vector(found, f"{attn}.{name}.weight")
        if config.has_state(i):
            self._gate(found, f"{attn}.gk_proj")
            self._vector(found, f"{attn}.g_norm.weight")
        if config.parallel:
            self._vector(found, f"{attn}.w_norm.weight")
        if config.has_window(i) and config.num_sink_tokens:
            self._vector(found, f"{attn}.sinks", lambda sinks: sinks.flatten(2))
        experts = [mlp]
        if config.num_experts and i not in config.dense_layers:
            self._vector(found, f"{mlp}.router.weight", Tensor.t)
            experts = [f"{mlp}.experts.{e}" for e in range(config.num_experts)]
            experts += [f"{mlp}.shared.{s}" for s in range(config.num_shared_experts)]
        for expert in experts:
            for name in ("gate_proj", "up_proj"):
                self._matrix(found, f"{expert}.{name}", self.formats.body)
            self._matrix(found, f"{expert}.down_proj", self.formats.down)
        self._dials(found, i)

    def _gate(self, found: Stored, name: str) -> None:
        """Matrices of the decay: one like the others, or two small ones in float32."""
        if self.config.gate == "merged":
            self._matrix(found, name, self.formats.body)
            self._vector(found, f"{name}.bias")
        elif self.config.gate == "low_rank":
            self._vector(found, f"{name}.0.weight", Tensor.t)
            self._vector(found, f"{name}.1.weight", Tensor.t)
            self._vector(found, f"{name}.1.bias")

    def _dials(self, found: Stored, i: int) -> None:
        """K and dead zone of each place of spikes: the model's, or the config's."""
        if not self.config.spikes:
            return
        places = ["attn.spikes", "attn.o_spikes", "mlp.spikes"]
        places += ["mlp.down_spikes"] if self.config.down_proj == "spiked" else []
        for place in places:
            name = f"model.layers.{i}.{place}"
            dial = torch.tensor([self.config.spike_k, self.config.dead_zone])
            if f"{name}.k" in self.source:
                dial = torch.cat([self._read(f"{name}.{x}") for x in ("k", "dead_zone")])
            for what, value, least in (("k", dial[0], LEAST_K), ("dead_zone", dial[1], 0.0)):
                if not least <= value <= MOST_K:
                    rule = f"must be in [{least:g}, {MOST_K:g}]"
                    raise SpiketrainError(f"{name}.{what} {rule}, got {value:g}")
            found[f"layers.{i}.{place}"] = dial
            self.dead = self.dead or bool(dial[1] > 0)

    def _vector(
        self, found: Stored, name: str, change: Callable[[Tensor], Tensor] = Tensor.clone
    ) -> None:
        found[name] = change(self._read(f"model.{name}"))

    def _matrix(self, found: Stored, name: str, form: str, source: str | None = None) -> None:
        """The tensors of the matrix `name` in its format."""
        source = source or f"model.{name}"
        if name in self.codes:
            own = self.codes[name]
        elif form.startswith("int8-gi"):
            scales = self._scales(source).squeeze(2)
            own = stored_int8(self._codes(source), scales.t())
        else:
            own = quantize(self._weights(source), self.source[f"{source}.weight"].shape, form)
        found |= {f"{name}.{key}": value for key, value in own.items()}

    def _weights(self, source: str):
        """(first output, weights (inputs, some outputs)) of a matrix, in order."""
        scales = f"{source}.weight_quantizer.scales"
        quantised = scales in self.source and self._is_read_quantised(source)
        rows, inputs = self.source[f"{source}.weight"].shape
        for start, stop in self._blocks(rows, inputs):
            block = self._read(f"{source}.weight", start, stop)
            if quantised:
                scale = self._scales(source, start, stop)
                block = torch.round(block.unflatten(1, (scale.shape[1], -1)) / scale) * scale
                block = block.flatten(1)
            yield start, block.t()

    def _codes(self, source: str) -> Tensor:
        """Whole numbers (inputs, outputs), int32, of a matrix with its own scales."""
        rows, inputs = self.source[f"{source}.weight"].shape
        whole = torch.empty(inputs, rows, dtype=torch.int32)
        for start, stop in self._blocks(rows, inputs):
            scale = self._scales(source, start, stop)
            block = self._read(f"{source}.weight", start, stop)
            codes = torch.round(block.unflatten(1, (scale.shape[1], -1)) / scale)
            most = codes.abs().max().item()
            if most > MOST_CODE:  # before a cast that would wrap
                raise SpiketrainError(
                    f"{source}.weight must have codes within +-{MOST_CODE}, got {most:g}"
                )
            whole[:, start:stop] = codes.flatten(1).t()
        return whole

    def _read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows of a tensor of the source; SpiketrainError unless all are finite."""
        return finite(self.source.read(name, start, stop), name, start)

    def _scales(self, source: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Scales (rows, I / group, 1) of rows of a matrix; SpiketrainError unless above 0."""
        name = f"{source}.weight_quantizer.scales"
        scales = self._read(name, start, stop)
        if not bool((scales > 0).all()):
            raise SpiketrainError(f"{name} must be above 0, got {scales.min().item()}")
        return scales

    def _is_read_quantised(self, source: str) -> bool:
        """The published code reads a down projection raw, though it has scales."""
        return self.config.down_proj == "spiked" or not source.endswith(".down_proj")

    def _blocks(self, rows: int, width: int):
        """Ranges of rows of at most block_bytes in float32, whole steps but the last."""
        step = max(_STEP, self.block_bytes // (4 * width) // _STEP * _STEP)
        return [(start, min(rows, start + step)) for start in range(0, rows, step)]
