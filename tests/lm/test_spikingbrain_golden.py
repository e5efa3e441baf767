"""SpikingBrain against tensors made by the official code (tests/data/spikingbrain)."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain.lm.checkpoint import UpstreamChoices, read_checkpoint  # noqa: E402
from spiketrain.lm.families.spikingbrain import codes, neurons  # noqa: E402

DATA = Path(__file__).parent.parent / "data" / "spikingbrain"
WINDOW = 16


def golden(name):
    return {key: torch.from_numpy(value) for key, value in np.load(DATA / f"{name}.npz").items()}


def load(name, **meaning):
    return read_checkpoint(DATA / name, UpstreamChoices(**meaning)).model


@torch.no_grad()
def one_pass(model, tokens):
    return model(tokens[None]).logits[0]


@torch.no_grad()
def in_pieces(model, tokens, size):
    state, logits = None, []
    for piece in tokens.split(size):
        out = model(piece[None], state=state)
        state = out.state
        logits.append(out.logits[0])
    return torch.cat(logits), state


def close(found, wanted, most=1e-4):
    torch.testing.assert_close(found, wanted, atol=most, rtol=0)


def test_one_pass_sees_one_key_more_than_the_window():
    wanted, model = golden("fp"), load("fp")
    close(one_pass(model, wanted["tokens"]), wanted["logits_full"])
    for size in (1, 7, 20):
        close(in_pieces(model, wanted["tokens"], size)[0], wanted["logits_full"])
    close(one_pass(model.double(), wanted["tokens"]), wanted["logits_full_f64"], 1e-5)


def test_token_by_token_upstream_sees_the_window():
    wanted, model = golden("fp"), load("fp", window_keys=WINDOW)
    logits, state = in_pieces(model, wanted["tokens"], 1)
    for name in ("logits_step", "logits_full_sdpa", "logits_step_sdpa"):
        close(logits, wanted[name])
    close(one_pass(model, wanted["tokens"]), wanted["logits_step"])
    for layer in (0, 2):  # upstream repeats the state for each query head of a group
        found = state[layer][0].unflatten(1, (2, 32, 32)).repeat_interleave(2, 1)[0]
        close(found, wanted[f"gla_state_l{layer}"])
    for layer in (1, 3):
        for part, name in enumerate(("kcache", "vcache")):
            kept = state[layer][part].unflatten(1, (WINDOW - 1, 2, 32))[0].transpose(0, 1)
            close(kept, wanted[f"{name}_l{layer}"][:, 1:])
    close(one_pass(model.double(), wanted["tokens"]), wanted["logits_step_f64"], 1e-5)


def test_hidden_states_are_the_official_ones():
    wanted, model, found = golden("fp"), load("fp"), []
    for block in model.model.layers:
        block.register_forward_hook(lambda _, given, out: found.append((given[0], out[0])))
    one_pass(model, wanted["tokens"])
    hidden = wanted["hidden_states_full"]
    for layer, (before, after) in enumerate(found):
        close(before[0], hidden[layer])
        if layer < 3:  # the last of theirs is after the norm
            close(after[0], hidden[layer + 1])


@pytest.mark.slow
@pytest.mark.parametrize("down_proj", [None, "spiked"])
def test_quantised_spiking_logits_are_the_official_ones(down_proj):
    wanted = golden("w8_g32")
    suffix = "_spiked_down" if down_proj else ""
    model = load("w8_g32", down_proj=down_proj)
    stepping = load("w8_g32", down_proj=down_proj, window_keys=WINDOW)
    for found, name in (
        (one_pass(model, wanted["tokens"]), "full"),
        (in_pieces(stepping, wanted["tokens"], 1)[0], "step"),
    ):
        off = (found - wanted[f"logits_{name}{suffix}"]).abs().amax(1)
        assert (off < 1e-3).float().mean() >= 0.95  # a count next to a rounding tie may flip
    for found, name in (
        (one_pass(model.double(), wanted["tokens"]), "full"),
        (in_pieces(stepping.double(), wanted["tokens"], 1)[0], "step"),
    ):
        close(found, wanted[f"logits_{name}{suffix}_f64"], 1e-5)


def test_counts_and_thresholds_are_the_official_ones():
    wanted = golden("spike_units")
    names = [name.removesuffix("__x") for name in wanted if name.endswith("__x")]
    assert len(names) == 4
    for name in names:
        counts, threshold = neurons.counts_and_threshold(wanted[f"{name}__x"], 3.0)
        assert torch.equal(counts.int(), wanted[f"{name}__int"])
        close(threshold, wanted[f"{name}__vth"], 1e-7)
    close(neurons.symmetric_int8(wanted["qsym_in"]), wanted["qsym_out"], 1e-7)
    weight = load("fp").model.layers[0].attn.q_proj.weight
    linear = neurons.Linear(128, 128, group=128)
    linear.weight.data.copy_(weight)
    linear.weight_quantizer.scales.data[:, 0] = weight.data.abs().amax(1, keepdim=True) / 127
    close(linear.rounded(), wanted["wq_layer0_q_proj"], 1e-7)


def test_codes_are_the_official_ones():
    wanted = golden("spike_codes")
    unsigned, signed = wanted["x_unsigned"], wanted["x_signed"]
    assert torch.equal(codes.binary(unsigned), wanted["binary"])
    assert torch.equal(codes.ternary(signed), wanted["ternary"])
    assert torch.equal(codes.bitwise(unsigned), wanted["bitwise_unsigned"])
    assert torch.equal(codes.bitwise(signed), wanted["bitwise_bidirectional"])
    assert torch.equal(codes.twos_complement(signed), wanted["bitwise_twos"])
