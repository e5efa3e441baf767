"""SpikeGPT at the published 216M dimensions against llama.cpp's RWKV-7 of equal size, in one run.

    python benchmarks/peers.py --llama-python VENV/bin/python [--rounds 5] [--json]

VENV has `pip install llama-cpp-python gguf` (which builds llama.cpp for this machine). Both models
have random weights: SpikeGPT 18 x 768 with 50,277 words (215M parameters; int8, int4), RWKV-7
18 x 768 with the same vocabulary (213M; Q8_0, Q4_0, its small matrices too). Spike-driven is the
SpikeGPT whose every matrix, the head too, reads spikes of 10 % of its inputs (int8, head int4;
spikegpt.py). A contender is a
process of its own; in every round all take turns, while the others wait: some tokens one by one,
then a prompt of 512 tokens with the logits of its last one. Ratios are medians over the rounds of
the ratio within a round, of elapsed time and of processor time. With random weights about half of
the squared ReLUs of the published model are zero.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from spikegpt import (
    INNER,
    LAYERS,
    SPIKE_DRIVEN,
    VOCAB,
    WIDTH,
    Run,
    activity_of,
    serve_spikegpt,
    write_spikegpt,
)

PROMPT = 512
HEAD_SIZE = 64
RANKS = {"w": 64, "a": 64, "v": 32, "g": 128}
PEERS = {"int8": "Q8_0", "int4": "Q4_0", SPIKE_DRIVEN: "Q8_0"}
SUBJECTS = ("decode", "prefill")


# --- llama.cpp ---------------------------------------------------------------------------------


def write_rwkv7(path: Path, weights: str) -> None:
    """A GGUF file with random weights."""
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, "rwkv7")
    writer.add_context_length(4 * PROMPT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(0)
    writer.add_layer_norm_eps(1e-5)
    writer.add_wkv_head_size(HEAD_SIZE)
    writer.add_decay_lora_rank(RANKS["w"])
    writer.add_iclr_lora_rank(RANKS["a"])
    writer.add_value_residual_mix_lora_rank(RANKS["v"])
    writer.add_gate_lora_rank(RANKS["g"])
    writer.add_token_shift_count(2)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(VOCAB)
    rng = np.random.default_rng(0)
    quantised = GGMLQuantizationType[weights]

    def matrix(name: str, outputs: int, inputs: int) -> None:
        blocks = random_blocks(rng, weights, outputs, inputs)
        writer.add_tensor(f"{name}.weight", blocks, raw_dtype=quantised)

    def vector(name: str, value: float, *shape: int) -> None:
        writer.add_tensor(name, np.full(shape or (WIDTH,), value, np.float32))

    def norm(name: str) -> None:
        vector(f"{name}.weight", 1.0)
        vector(f"{name}.bias", 0.0)

    matrix("token_embd", VOCAB, WIDTH)
    matrix("output", VOCAB, WIDTH)
    norm("token_embd_norm")
    norm("output_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for name in ("attn_norm", "attn_norm_2", "time_mix_ln"):
            norm(f"{block}.{name}")
        for letter, rank in RANKS.items():
            rank = RANKS["a"] if letter == "v" and layer == 0 else rank
            if letter != "g":
                vector(f"{block}.time_mix_{letter}0.weight", -1.0)
            matrix(f"{block}.time_mix_{letter}1", rank, WIDTH)
            matrix(f"{block}.time_mix_{letter}2", WIDTH, rank)
        vector(f"{block}.time_mix_lerp_fused.weight", 0.5, 6, 1, 1, WIDTH)
        for name in ("k_k", "k_a", "r_k"):
            vector(f"{block}.time_mix_{name}.weight", 0.5)
        for name in ("key", "value", "receptance", "output"):
            matrix(f"{block}.time_mix_{name}", WIDTH, WIDTH)
        vector(f"{block}.channel_mix_lerp_k.weight", 0.5, 1, 1, WIDTH)
        matrix(f"{block}.channel_mix_key", INNER, WIDTH)
        matrix(f"{block}.channel_mix_value", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_blocks(rng: np.random.Generator, weights: str, outputs: int, inputs: int) -> Any:
    """Blocks of 32 weights, each a float16 scale and codes, as bytes (outputs, bytes)."""
    size = {"Q8_0": 32, "Q4_0": 16}[weights]
    blocks = rng.integers(0, 256, (outputs, inputs // 32, 2 + size), np.uint8)
    scale = np.full((outputs, inputs // 32, 1), 2.0**-11 if size == 32 else 2.0**-7, np.float16)
    blocks[:, :, :2] = scale.view(np.uint8)
    return blocks.reshape(outputs, -1)


def serve_rwkv7(path: str, threads: int) -> tuple[Run, Run]:
    """(decode, prefill) of a GGUF file."""
    import llama_cpp as api

    api.llama_log_set(_SILENT, ctypes.c_void_p(0))
    model = api.llama_model_load_from_file(path.encode(), api.llama_model_default_params())
    parameters = api.llama_context_default_params()
    parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = 4 * PROMPT, PROMPT, PROMPT
    parameters.n_threads = parameters.n_threads_batch = threads
    context = api.llama_init_from_model(model, parameters)
    if not context:
        raise RuntimeError(f"llama.cpp does not load {path}")

    def run(tokens: list[int]) -> None:
        array = (api.llama_token * len(tokens))(*tokens)
        if api.llama_decode(context, api.llama_batch_get_one(array, len(tokens))):
            raise RuntimeError("llama_decode failed")
        api.llama_synchronize(context)

    def decode(tokens: list[int]) -> None:
        for token in tokens:
            run([token])

    def prefill(tokens: list[int]) -> None:
        api.llama_memory_clear(api.llama_get_memory(context), True)
        run(tokens)

    return decode, prefill


_SILENT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(
    lambda level, text, data: None
)


# --- contenders --------------------------------------------------------------------------------


def work(kind: str, path: str, threads: int) -> None:
    """Serve requests from standard input, one a line: the subject and the number of tokens."""
    serve = serve_spikegpt if kind in PEERS else serve_rwkv7
    runs = dict(zip(SUBJECTS, serve(path, threads), strict=True))
    rng = np.random.default_rng(1)
    print("ready", flush=True)
    for line in sys.stdin:
        subject, count = line.split()
        tokens = rng.integers(0, VOCAB, int(count)).tolist()
        start, processor = time.perf_counter(), time.process_time()
        runs[subject](tokens)
        print(time.perf_counter() - start, time.process_time() - processor, flush=True)


class Contender:
    """One model with its number of threads, in a process of its own."""

    def __init__(self, python: str, kind: str, path: Path, threads: int) -> None:
        self.kind, self.threads = kind, threads
        command = [python, __file__, "--work", kind, str(path), str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._line() != "ready":
            raise RuntimeError(f"{kind} did not start")

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def seconds(self, subject: str, count: int) -> tuple[float, float]:
        """Elapsed and processor seconds of a request."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{subject} {count}\n")
        self.process.stdin.flush()
        elapsed, processor = self._line().split()
        return float(elapsed), float(processor)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One row for each subject, format and number of threads; what the spike-driven one reads."""
    paths = {ours: folder / ours for ours in PEERS}
    for ours, path in paths.items():
        write_spikegpt(path, ours)
    activity = activity_of(paths[SPIKE_DRIVEN])
    for theirs in sorted(set(PEERS.values())):
        paths[theirs] = folder / f"{theirs}.gguf"
        command = [options.llama_python, __file__, "--write", theirs, str(paths[theirs])]
        subprocess.run(command, check=True)
    rows = []
    for threads in options.threads:
        contenders = [
            Contender(
                sys.executable if kind in PEERS else options.llama_python, kind, path, threads
            )
            for kind, path in paths.items()
        ]
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for turn in range(options.rounds + 1):
            for subject, count in zip(SUBJECTS, (options.tokens, PROMPT), strict=True):
                for contender in contenders:
                    seconds = contender.seconds(subject, count)
                    if turn:  # the first round warms up
                        per_token = (seconds[0] / count, seconds[1] / count)
                        found.setdefault((contender.kind, subject), []).append(per_token)
        for contender in contenders:
            contender.close()
        rows += [
            row(subject, ours, threads, found[ours, subject], found[theirs, subject])
            for subject in SUBJECTS
            for ours, theirs in PEERS.items()
        ]
    return {"rows": rows, "spike_driven": activity}


def row(
    subject: str,
    ours: str,
    threads: int,
    times: list[tuple[float, float]],
    peers: list[tuple[float, float]],
) -> dict[str, Any]:
    """Medians and ratios of one comparison."""
    both = list(zip(times, peers, strict=True))
    return {
        "subject": subject,
        "ours": ours,
        "peer": PEERS[ours],
        "threads": threads,
        "tokens_per_s": 1 / statistics.median(t[0] for t in times),
        "peer_tokens_per_s": 1 / statistics.median(t[0] for t in peers),
        "faster_by": statistics.median(peer[0] / our[0] for our, peer in both),
        "less_processor_time_by": statistics.median(peer[1] / our[1] for our, peer in both),
    }


def print_table(result: dict[str, Any]) -> None:
    """The result as Markdown."""
    spikes = result["spike_driven"]
    print(
        f"Spike-driven: {100 * spikes['firing_rate']:.1f} % of the inputs are not zero, "
        f"{spikes['weight_bytes_touched_per_token'] / 1e6:.1f} MB of weights a token.\n"
    )
    print(
        "| | threads | ours, tokens/s | llama.cpp, tokens/s | faster by | less processor time by |"
    )
    print("|---|---|---|---|---|---|")
    for r in result["rows"]:
        print(
            f"| {r['subject']}, {r['ours']} against {r['peer']} | {r['threads']} "
            f"| {r['tokens_per_s']:.0f} | {r['peer_tokens_per_s']:.0f} "
            f"| {r['faster_by']:.2f}x | {r['less_processor_time_by']:.2f}x |"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="SpikeGPT 216M against llama.cpp's RWKV-7.")
    parser.add_argument("--llama-python", help="Python that has llama_cpp and gguf")
    parser.add_argument("--rounds", type=int, default=5, help="rounds")
    parser.add_argument("--tokens", type=int, default=24, help="tokens decoded in a round")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], options.work[1], int(options.work[2]))
        return
    if options.write:
        write_rwkv7(Path(options.write[1]), options.write[0])
        return
    if not options.llama_python:
        parser.error("--llama-python must name a Python that has llama_cpp and gguf")
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    print(json.dumps(result)) if options.json else print_table(result)


if __name__ == "__main__":
    main()
