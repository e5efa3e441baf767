"""Schedules over a run: the learning rate, and the price of an event."""

import math

from torch import Tensor

from spiketrain.training.config import ActivityConfig, OptimizerConfig


def learning_rate(config: OptimizerConfig, done: int, total: int) -> float:
    """Linear warm-up over warmup_tokens, then a cosine to final_fraction of the peak."""
    if done < config.warmup_tokens:
        return config.learning_rate * (done + 1) / (config.warmup_tokens + 1)
    progress = (done - config.warmup_tokens) / max(1, total - config.warmup_tokens)
    shape = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * (config.final_fraction + (1.0 - config.final_fraction) * shape)


def event_price(config: ActivityConfig, rates: Tensor, done: int, total: int) -> Tensor:
    """Nats charged for one event of each unit of a layer, negative where events are paid.

    rates (H,): the share of steps in which each unit fires; their mean is the layer's firing rate.
    """
    ramp = 1.0 if not config.ramp else min(1.0, done / (config.ramp * total))
    if config.target_rate == 0.0:
        share = 1.0
    else:
        above = (rates.mean().item() - config.target_rate) / (config.band * config.target_rate)
        share = min(1.0, max(0.0, above))
    price = rates.new_full(rates.shape, config.penalty * ramp * share)
    if config.floor_rate:
        price -= config.floor_reward * (1.0 - rates / config.floor_rate).clamp_min(0.0)
    return price
