"""Dead zones of spike counts set from text: a stated share of zero inputs at the least loss.

A place p that loses the share f of its inputs' energy moves the next token's distribution by about
c_p f nats; c_p is measured by silencing one place at a time.  The next input dropped costs every
place the same at |x| / V = t k sqrt(r_p / c_p), r = mean(x^2) / mean|x|^2; t is found by bisection.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from spiketrain.lm.families.spikingbrain import Model
from spiketrain.lm.families.spikingbrain.neurons import Spikes
from spiketrain.lm.progress import OnProgress, silent
from spiketrain.runtime.families.spikingbrain.spec import MAX_K

BISECTIONS = 20
MIN_COST = 1e-3  # of the mean cost: a place that seems to cost nothing is not silenced outright
MAX_QUIET = 0.98  # share of zeros of any one place


@dataclass
class _Place:
    name: str
    spikes: Spikes
    ratio: float  # mean(x^2) / mean|x|^2
    levels: Tensor  # sample of |x| / V, ascending
    cost: float = 1.0


@torch.no_grad()
def calibrate_sparsity(
    model: Model, input_ids: Tensor, sparsity: float, on_progress: OnProgress = silent
) -> dict[str, Any]:
    """Set the dead zones such that `sparsity` of what matrices read on input_ids (B, T) is 0.

    The share is the mean over the places of spikes.  Returns the loss in nats a token before and
    after, and for each place its name, dead zone, cost and share of zeros before and after.
    Rounding alone leaves some zeros; a target below that leaves every zone 0.  Raises ValueError
    unless 0 < sparsity < MAX_QUIET and the model has spikes.
    """
    if not 0.0 < sparsity < MAX_QUIET:
        raise ValueError(f"sparsity must be in (0, {MAX_QUIET}), got {sparsity}")
    neurons = dict(_spiking(model))
    if not neurons:
        raise ValueError("model must have spikes to be made sparse")
    for spikes in neurons.values():
        spikes.dead_zone.zero_()
    places = _observe(model, neurons, input_ids)
    before, zeros = _loss_and_zeros(model, input_ids)
    if sum(zeros) / len(zeros) < sparsity:
        _measure_costs(model, places, input_ids, sparsity, on_progress)
        low, high = 0.0, 16.0
        for halved in range(BISECTIONS):
            middle = (low + high) / 2
            _set_zones(places, middle)
            _, now = _loss_and_zeros(model, input_ids)
            low, high = (middle, high) if sum(now) / len(now) < sparsity else (low, middle)
            on_progress(len(places) + halved + 1, len(places) + BISECTIONS)
        _set_zones(places, high)
    after, now = _loss_and_zeros(model, input_ids)
    return {
        "sparsity": sum(now) / len(now),
        "nats_before": before,
        "nats_after": after,
        "places": [
            {
                "name": place.name,
                "dead_zone": place.spikes.dead_zone.item(),
                "cost": place.cost,
                "zeros_before": share_before,
                "zeros": share,
            }
            for place, share_before, share in zip(places, zeros, now, strict=True)
        ],
    }


def _spiking(model: Model):
    """Places of spikes by name, in the order of their events."""
    for i, block in enumerate(model.model.layers):
        for half, names in (("attn", ("spikes", "o_spikes")), ("mlp", ("spikes", "down_spikes"))):
            for name in names:
                spikes = getattr(getattr(block, half), name)
                if spikes.fires:
                    yield f"layers.{i}.{half}.{name}", spikes


def _observe(model: Model, neurons: dict[str, Spikes], input_ids: Tensor) -> list[_Place]:
    """What each place reads without dead zones."""
    seen: dict[str, tuple[float, Tensor]] = {}

    def note(name: str, spikes: Spikes, x: Tensor) -> None:
        size = x.abs().float()
        mean = size.mean(-1, keepdim=True).clamp_min(1e-9)
        ratio = (size / mean).square().mean().item()
        levels = (size / mean * spikes.k).flatten()
        seen.setdefault(name, (ratio, levels[:: max(1, len(levels) // 50_000)].sort().values))

    hooks = [
        spikes.register_forward_pre_hook(
            lambda neuron, inputs, name=name: note(name, neuron, inputs[0])
        )
        for name, spikes in neurons.items()
    ]
    try:
        model.features(input_ids)
    finally:
        for hook in hooks:
            hook.remove()
    return [_Place(name, spikes, *seen[name]) for name, spikes in neurons.items()]


def _measure_costs(
    model: Model,
    places: list[_Place],
    input_ids: Tensor,
    sparsity: float,
    on_progress: OnProgress,
) -> None:
    """Nats of divergence that a place's share of energy is worth, from silencing it alone."""
    reference = _log_shares(model, input_ids)
    for done, place in enumerate(places, 1):
        zone = place.levels[int(sparsity * (len(place.levels) - 1))]
        lost = place.levels[place.levels < zone].square().sum() / place.levels.square().sum()
        place.spikes.dead_zone.fill_(zone)
        silenced = _log_shares(model, input_ids)
        place.spikes.dead_zone.zero_()
        gap = F.kl_div(silenced, reference, reduction="batchmean", log_target=True).item()
        place.cost = max(0.0, gap) / max(lost.item(), 1e-6)
        on_progress(done, len(places) + BISECTIONS)
    least = MIN_COST * sum(place.cost for place in places) / len(places) or 1.0
    for place in places:
        place.cost = max(place.cost, least)


def _log_shares(model: Model, input_ids: Tensor) -> Tensor:
    """Logarithms of the next token's probabilities (T B, V)."""
    features, _, _ = model.features(input_ids)
    return torch.log_softmax(model.logits(features).float(), -1).flatten(0, 1)


def _set_zones(places: list[_Place], strength: float) -> None:
    """Zones at which the next dropped input costs every place the same."""
    scale = max(place.cost for place in places)
    for place in places:
        k = place.spikes.k.item()
        zone = strength * k * (place.ratio * scale / place.cost) ** 0.5
        most = place.levels[int(MAX_QUIET * (len(place.levels) - 1))].item()
        place.spikes.dead_zone.fill_(min(zone, most, MAX_K))


def _loss_and_zeros(model: Model, input_ids: Tensor) -> tuple[float, list[float]]:
    """Nats a token, and the share of zeros of each place."""
    features, _, events = model.features(input_ids[:, :-1])
    loss = model.mean_nll(features, input_ids[:, 1:]).item()
    return loss, [(read == 0).float().mean().item() for read in events]
