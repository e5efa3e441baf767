"""Loss of a torch model on a token stream in the carry protocol."""

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import torch

from spiketrain.lm.progress import OnProgress, silent
from spiketrain.runtime.errors import DataError


@torch.no_grad()
def evaluate(
    model,
    stream: np.ndarray,
    num_bytes: int,
    lanes: int = 8,
    steps: int = 128,
    on_progress: OnProgress = silent,
) -> dict:
    """Nats per token and bits per byte of stream (N,), whose raw text has num_bytes bytes.

    The stream is read in `lanes` contiguous stretches side by side, each from the zero state, which
    is then carried; one lane is the carry protocol itself.  stream[0] is context only.
    Cells, outputs and products are float32.
    """
    stride = (len(stream) - 1) // lanes
    if stride < 1:
        raise DataError(f"{len(stream)} tokens are too few for {lanes} lanes")
    table = np.stack([stream[i * stride : (i + 1) * stride + 1] for i in range(lanes)])
    tokens = torch.from_numpy(table.astype(np.int64)).to(next(model.parameters()).device)
    with _float32(model):
        state, nll, fired = model.initial_state(lanes), 0.0, np.zeros(0)
        for at in range(0, stride, steps):
            window = tokens[:, at : at + steps + 1]
            features, state, events = model.features(window[:, :-1], state)
            targets = window[:, 1:]
            nll += model.mean_nll(features, targets).item() * targets.numel()
            counts = np.array([torch.count_nonzero(y).item() / y[0].numel() for y in events])
            fired = fired + counts if fired.size else counts
            state = model.carried(state)
            on_progress(min(at + steps, stride), stride)
    scored = stride * lanes
    per_token = nll / scored
    bytes_per_token = num_bytes / (len(stream) - 1)
    return {
        "nll": per_token,
        "bits_per_byte": per_token / math.log(2) / bytes_per_token,
        "firing_rates": (fired / stride).tolist(),
        "tokens": scored,
    }


@contextlib.contextmanager
def _float32(model) -> Iterator[None]:
    """Evaluation mode in float32, whatever the training precision; random numbers untouched."""
    random, precision, training = torch.get_rng_state(), model.config.compute_dtype, model.training
    model.config.compute_dtype = "float32"
    model.eval()
    try:
        yield
    finally:
        model.config.compute_dtype = precision
        model.train(training)
        torch.set_rng_state(random)
