"""SpikingBrain at the published 7B dimensions: load, memory and decode speed at several contexts.

    python benchmarks/spikingbrain.py package DIR [--layers 28] [--linear]
    python benchmarks/spikingbrain.py checkpoint DIR [--layers 28]
    python benchmarks/spikingbrain.py measure DIR [--contexts 0 8192 32768 100000] [--tokens 4]

`package` writes random int4 weights (spiked down projections, int8 embedding, int4 head, bfloat16
window) as a runtime package, `checkpoint` random bfloat16 weights as a sharded directory with the
names and shapes of SpikingBrain-7B (Qwen2.5-7B's and the decays'), for `spiketrain convert`.
`measure` takes each figure in one process: the context is a state whose window and linear states
are filled with random numbers at that position.  Four layers of the same width (--layers 4) stand
for the time of a layer; head and embedding are then the larger part.  `spikingbrain_against.py`
compares with llama.cpp.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from int8_peak import Peak

WIDTH, HEADS, SHARED, SIZE, INNER, VOCAB = 3584, 28, 4, 128, 18944, 152064
LAYERS, WINDOW = 28, 4096
SHARD_BYTES = 4 << 30
NOISE = 1 << 20  # random numbers of a matrix: pieces of them, from random places
WEIGHTS = {"embedding": "int8", "body": "int4-go", "down": "int4-go", "head": "int4-gi"}


def sizes(layers: int, linear: bool) -> dict[str, Any]:
    """Fields of a config that say how large it is."""
    return {
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": SHARED,
        "intermediate_size": INNER,
        "sliding_window": WINDOW,
        "attn_layers": [] if linear else list(range(1, layers, 2)),
    }


# --- ours --------------------------------------------------------------------------------------


def write_package(path: Path, layers: int, linear: bool, dead_zone: float) -> None:
    """A package with random weights, tensors in a temporary file beside it until it is written."""
    from spiketrain.runtime.families.spikingbrain import Spec
    from spiketrain.runtime.package import write_package

    config = sizes(layers, linear) | {
        "model_type": "spikingbrain",
        "architectures": ["SpikingBrainForCausalLM"],
        "gate": "merged",
        "spikes": True,
        "window_cache": "bfloat16",
        "spiketrain": {
            "format_version": 1,
            "weights": WEIGHTS,
            "events": "counts",
            "fidelity": "approximate" if dead_zone else "integer",
            "provenance": {"source": "random weights"},
        },
    }
    shapes = Spec.from_config(config).tensors()
    rng = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        tensors = {
            name: np.array([3.0, dead_zone], np.float32)
            if name.endswith("spikes")
            else random_tensor(rng, Path(folder) / str(i), name, dtype, shape)
            for i, (name, (dtype, shape)) in enumerate(shapes.items())
        }
        write_package(path, config, tensors)


def random_tensor(
    rng: np.random.Generator, file: Path, name: str, dtype: str, shape: tuple[int, ...]
) -> Any:
    """Values that keep activations in a usual range; large ones in a mapped file."""
    kind = name.rpartition(".")[2]
    if dtype in ("uint8", "int8"):
        values = np.arange(1, 16, dtype=np.uint8)  # codes -7 .. 7 + 8, and multipliers
        if dtype == "int8":
            values = np.arange(-127, 128).astype(np.int8)
        elif kind == "weight":
            values = (values[:, None] << 4 | values).reshape(-1)
        array = np.memmap(file, dtype, "w+", shape=shape)
        for row in range(0, shape[0], 256):
            part = array[row : row + 256]
            part[...] = values[rng.integers(0, len(values), part.shape, np.uint8)]
        array.flush()
        return np.memmap(file, dtype, "r", shape=shape)
    if kind == "scale":
        inputs = INNER if ".down_proj" in name else WIDTH
        step = 2.0**-7 if len(shape) == 1 and shape[0] == VOCAB else 1 / (40 * np.sqrt(inputs))
        step = 2.0**-8 if len(shape) == 2 else step
        return np.full(shape, step, np.float32)
    return np.full(shape, 1.0 if kind == "weight" else 0.0, np.float32)


def measure(path: Path, contexts: list[int], tokens: int, threads: int) -> dict[str, Any]:
    """Load time, memory and decode times of one package."""
    from spiketrain import runtime

    start = time.perf_counter()
    model = runtime.load_model(path, threads=threads)
    found: dict[str, Any] = {
        "load_s": time.perf_counter() - start,
        "peak_bytes_loading": peak_bytes(),
        "resident_bytes_loaded": resident_bytes(),
        "state_bytes": model.state_nbytes,
        "contexts": [],
    }
    start = time.perf_counter()
    model.forward(model.new_state(), list(range(128)), last_only=True)
    seconds = time.perf_counter() - start
    found["prefill_tokens_per_s"] = 128 / seconds
    if (peak := Peak.compiled()) is not None:
        done = model.activity().macs_dense / seconds  # every weight once a token
        best = max(peak.multiplications_per_s(threads) for _ in range(5))
        found["prefill_share_of_int8_peak"] = done / best
    for context in contexts:
        state = filled(model, context)
        times = [
            timed(lambda t=t, s=state: model.step([s], [t % VOCAB])) for t in range(tokens + 1)
        ]
        found["contexts"].append(
            {
                "context": context,
                "seconds_a_token": statistics.median(elapsed for elapsed, _ in times[1:]),
                "processor_seconds_a_token": statistics.median(used for _, used in times[1:]),
                "resident_bytes": resident_bytes(),
            }
        )
    found["peak_bytes"] = peak_bytes()
    activity = model.activity()
    found["input_sparsity"] = 1 - activity.firing_rate
    return found


def filled(model: Any, context: int) -> Any:
    """A state at position `context` whose memories hold random numbers of a usual size."""
    rng = np.random.default_rng(1)
    state = model.new_state()
    if not context:
        return state
    for name, array in state.arrays().items():
        if name == "position":
            array[...] = context
        elif array.dtype == np.uint16:
            array[...] = rng.integers(0x3E00, 0x3F80, array.shape, np.uint16)
        elif array.dtype == np.float32 and name != "dial":
            array[...] = rng.random(array.shape, np.float32)
    state.position = context
    return state


def timed(run: Any) -> tuple[float, float]:
    """Elapsed and processor seconds of a call."""
    start, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - processor


def resident_bytes() -> int:
    """Bytes of this process in memory now."""
    status = Path("/proc/self/status").read_text().split("VmRSS:")[1]
    return 1024 * int(status.split()[0])


def peak_bytes() -> int:
    """Most bytes of this process in memory so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# --- a checkpoint to convert ---------------------------------------------------------------------


def qwen_tensors(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of Qwen2.5-7B, output-major as they are published."""
    narrow = SHARED * SIZE
    yield "model.embed_tokens.weight", (VOCAB, WIDTH)
    for i in range(layers):
        block = f"model.layers.{i}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{block}.{name}.weight", (WIDTH,)
        for key, outputs in (("q", WIDTH), ("k", narrow), ("v", narrow)):
            yield f"{block}.self_attn.{key}_proj.weight", (outputs, WIDTH)
            yield f"{block}.self_attn.{key}_proj.bias", (outputs,)
        yield f"{block}.self_attn.o_proj.weight", (WIDTH, WIDTH)
        for key in ("gate", "up"):
            yield f"{block}.mlp.{key}_proj.weight", (INNER, WIDTH)
        yield f"{block}.mlp.down_proj.weight", (WIDTH, INNER)
    yield "model.norm.weight", (WIDTH,)
    yield "lm_head.weight", (VOCAB, WIDTH)


def write_checkpoint(path: Path, layers: int) -> None:
    """Random bfloat16 weights in shards with an index, as `hf_7B_model` has them."""
    from spiketrain.lm.families.spikingbrain.config import Config
    from spiketrain.lm.families.spikingbrain.upstream import expected_shapes

    settings = sizes(layers, linear=False) | {"max_position_embeddings": 131072}
    path.mkdir(parents=True)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    size = 0
    for name, shape in expected_shapes(Config(**settings)).items():
        nbytes = 2 * int(np.prod(shape))
        if shards[-1] and size + nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append((name, shape))
        size += nbytes
    rng = np.random.default_rng(0)
    index = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        index |= {name: file for name, _ in shard}
        write_shard(path / file, shard, rng)
    total = sum(2 * int(np.prod(shape)) for shard in shards for _, shape in shard)
    content = {"metadata": {"total_size": total}, "weight_map": index}
    (path / "model.safetensors.index.json").write_text(json.dumps(content))
    config = settings | {
        "architectures": ["GLAswaForCausalLM"],
        "model_type": "gla_swa",
        "hidden_act": "swish",
        "norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (path / "config.json").write_text(json.dumps(config, indent=1))


def write_shard(path: Path, tensors: list[tuple[str, tuple[int, ...]]], rng: Any) -> None:
    """One safetensors file; matrices are normal with the deviation 1 / sqrt(inputs)."""
    header, position = {}, 0
    for name, shape in tensors:
        end = position + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header).encode()
    raw += b" " * (-(8 + len(raw)) % 64)
    with open(path, "wb") as stream:
        stream.write(len(raw).to_bytes(8, "little") + raw)
        for name, shape in tensors:
            if len(shape) == 1:
                values = np.full(shape, 0.0 if name.endswith("bias") else 1.0, np.float32)
                stream.write(bits_of_bfloat16(values))
                continue
            noise = rng.standard_normal(NOISE, np.float32) / np.float32(np.sqrt(shape[1]))
            left, whole = int(np.prod(shape)), bits_of_bfloat16(noise)
            while left:
                start = 2 * int(rng.integers(NOISE))  # bytes
                piece = whole[start : min(len(whole), start + 2 * left)]
                stream.write(piece)
                left -= len(piece) // 2


def bits_of_bfloat16(values: np.ndarray) -> bytes:
    """The upper halves of float32 values."""
    return bytes((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def main() -> None:
    """One step of the measurement."""
    parser = argparse.ArgumentParser(description="SpikingBrain at 7B dimensions.")
    parser.add_argument("step", choices=("package", "checkpoint", "measure"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--layers", type=int, default=LAYERS, help="layers of the same width")
    parser.add_argument("--linear", action="store_true", help="linear attention in every layer")
    parser.add_argument("--dead-zone", type=float, default=0.0, help="1.9: half of the inputs")
    parser.add_argument("--contexts", type=int, nargs="+", default=[0, 8192, 32768, 100_000])
    parser.add_argument("--tokens", type=int, default=4, help="tokens of a measurement")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.step == "package":
        write_package(options.path, options.layers, options.linear, options.dead_zone)
    elif options.step == "checkpoint":
        write_checkpoint(options.path, options.layers)
    else:
        found = measure(options.path, options.contexts, options.tokens, options.threads)
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
