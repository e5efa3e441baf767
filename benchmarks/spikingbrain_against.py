"""SpikingBrain at the published 7B dimensions beside llama.cpp's Qwen2.5-7B in Q4_0.

    python benchmarks/spikingbrain_against.py peer FILE.gguf [--layers 28]  (with llama.cpp's gguf)
    python benchmarks/spikingbrain_against.py against DIR FILE.gguf --llama-python PYTHON
    ... --past 32768, or --prefill --tokens 512

Both models have random weights; DIR is a package of `spikingbrain.py` or converted from its
checkpoint. They take turns, ratios are medians within a round. `--past` decodes after so many
synthetic tokens: ours a state filled with random numbers, llama.cpp's keys and values repeat those
of its first four tokens. `--prefill` reads a prompt of --tokens tokens instead.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from spikingbrain import HEADS, INNER, LAYERS, SHARED, VOCAB, WIDTH, filled, qwen_tensors, timed


def write_peer(path: Path, layers: int) -> None:
    """A GGUF file of Qwen2.5-7B's shapes with random Q4_0 weights."""
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, "qwen2", use_temp_file=True)
    writer.add_context_length(131072)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(SHARED)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(VOCAB)
    rng = np.random.default_rng(0)
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, shape in qwen_tensors(layers):
        stem, _, kind = name.rpartition(".")
        if stem in whole:
            target = f"{whole[stem]}.{kind}"
        else:
            _, _, layer, part = stem.split(".", 3)
            target = f"blk.{layer}.{names[part]}.{kind}"
        if len(shape) == 1:
            writer.add_tensor(target, np.full(shape, float(kind == "weight"), np.float32))
            continue
        blocks = rng.integers(0, 256, (shape[0], shape[1] // 32, 18), np.uint8)
        blocks[:, :, :2] = np.array([2.0**-9], np.float16).view(np.uint8)
        flat = blocks.reshape(shape[0], -1)
        writer.add_tensor(target, flat, raw_dtype=GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def serve(path: str, threads: int, past: int) -> tuple[Any, Any]:
    """Functions that decode so many tokens after `past` synthetic ones, and that read a prompt."""
    return (llama if path.endswith(".gguf") else ours)(path, threads, past)


def ours(path: str, threads: int, past: int) -> tuple[Any, Any]:
    """The two functions of a package."""
    from spiketrain import runtime

    model = runtime.load_model(path, threads=threads)
    state = filled(model, past)

    def decode(count: int) -> None:
        for token in range(count):
            model.step([state], [token])

    def prefill(count: int) -> None:
        model.forward(model.new_state(), list(range(count)), last_only=True)

    return decode, prefill


def llama(path: str, threads: int, past: int) -> tuple[Any, Any]:
    """The two functions of llama.cpp; a prompt forgets what was before."""
    import llama_cpp as api

    model = api.llama_model_load_from_file(path.encode(), api.llama_model_default_params())
    parameters = api.llama_context_default_params()
    parameters.n_ctx = past + 1024
    parameters.n_threads = parameters.n_threads_batch = threads
    context = api.llama_init_from_model(model, parameters)
    if not context:
        raise RuntimeError(f"llama.cpp does not load {path}")

    def read(tokens: list[int]) -> None:
        array = (api.llama_token * len(tokens))(*tokens)
        if api.llama_decode(context, api.llama_batch_get_one(array, len(tokens))):
            raise RuntimeError("llama_decode failed")
        api.llama_synchronize(context)

    def decode(count: int) -> None:
        for token in range(count):
            read([token])

    def prefill(count: int) -> None:
        api.llama_memory_clear(api.llama_get_memory(context), True)
        read(list(range(count)))

    if past:
        decode(4)
        lengthen(api, context, past)
    return decode, prefill


def lengthen(api: Any, context: Any, count: int) -> None:
    """Repeat the keys and values of llama.cpp's first tokens until there are `count`.

    The blob of a sequence: 8 bytes of a header, streams, cells, (position, 1, sequence) of each
    cell, whether values are transposed, layers, and for each layer type, row size and rows of its
    keys, then the same of all values.
    """
    size = api.llama_state_seq_get_size(context, 0)
    buffer = (ctypes.c_uint8 * size)()
    api.llama_state_seq_get_data(context, buffer, size, 0)
    old = bytes(buffer)
    streams, cells = struct.unpack_from("<2I", old, 8)
    at = 16 + 12 * cells
    transposed, layers = struct.unpack_from("<2I", old, at)
    if streams != 1 or transposed:
        raise RuntimeError(f"llama.cpp's state has {streams} streams, transposed {transposed}")
    places = np.zeros((count, 3), "<u4")
    places[:, 0], places[:, 1] = np.arange(count), 1
    parts = [old[:12], struct.pack("<I", count), places.tobytes(), old[at : at + 8]]
    at += 8
    for _ in range(2 * layers):
        (row,) = struct.unpack_from("<Q", old, at + 4)
        rows = old[at + 12 : at + 12 + cells * row]
        parts += [old[at : at + 12], (rows * -(-count // cells))[: count * row]]
        at += 12 + cells * row
    new = b"".join(parts)
    taken = api.llama_state_seq_set_data(
        context, (ctypes.c_uint8 * len(new)).from_buffer_copy(new), len(new), 0
    )
    if at != size or taken != len(new):
        raise RuntimeError(f"llama.cpp took {taken} bytes of a state of {len(new)}")


def work(options: argparse.Namespace) -> None:
    """Decode or read as many tokens as each line of standard input says."""
    decode, prefill = serve(str(options.path), options.threads, options.past)
    run = prefill if options.prefill else decode
    print("ready", flush=True)
    for line in sys.stdin:
        print(*timed(lambda n=int(line): run(n)), flush=True)


def against(options: argparse.Namespace) -> dict[str, Any]:
    """Decoding after `past` tokens or reading a prompt, in turns."""
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "peer": []}
    pythons = {"ours": sys.executable, "peer": options.llama_python}
    paths = {"ours": options.path, "peer": options.peer}
    processes = {}
    for name, python in pythons.items():
        command = [python, __file__, "work", str(paths[name]), "--threads", str(options.threads)]
        command += ["--past", str(options.past), *(["--prefill"] if options.prefill else [])]
        processes[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        while processes[name].stdout.readline().strip() != "ready":
            if processes[name].poll() is not None:
                raise RuntimeError(f"{name} did not start")
    for turn in range(options.rounds + 1):
        for name, process in processes.items():
            process.stdin.write(f"{options.tokens}\n")
            process.stdin.flush()
            elapsed, used = map(float, process.stdout.readline().split())
            if turn:  # the first round warms up
                found[name].append((elapsed / options.tokens, used / options.tokens))
    for process in processes.values():
        process.stdin.close()
        process.wait()
    pairs = list(zip(found["ours"], found["peer"], strict=True))
    return {
        "seconds_a_token": statistics.median(o[0] for o in found["ours"]),
        "peer_seconds_a_token": statistics.median(p[0] for p in found["peer"]),
        "faster_by": statistics.median(p[0] / o[0] for o, p in pairs),
        "less_processor_time_by": statistics.median(p[1] / o[1] for o, p in pairs),
    }


def main() -> None:
    """One step of the comparison."""
    parser = argparse.ArgumentParser(description="SpikingBrain at 7B beside llama.cpp.")
    parser.add_argument("step", choices=("peer", "against", "work"))
    parser.add_argument("path", type=Path)
    parser.add_argument("peer", type=Path, nargs="?", help="llama.cpp's file, for against")
    parser.add_argument("--layers", type=int, default=LAYERS, help="layers of the same width")
    parser.add_argument("--tokens", type=int, default=4, help="tokens of a measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--past", type=int, default=0, help="synthetic tokens before")
    parser.add_argument("--prefill", action="store_true", help="read a prompt, do not decode")
    parser.add_argument("--llama-python", help="Python that has llama_cpp")
    options = parser.parse_args()
    if options.step == "peer":
        write_peer(options.path, options.layers)
    elif options.step == "work":
        work(options)
    elif options.peer is None or not options.llama_python:
        parser.error("against needs llama.cpp's file and --llama-python")
    else:
        print(json.dumps(against(options), indent=1))


if __name__ == "__main__":
    main()
