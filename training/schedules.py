"""What changes over a run: the learning rate, and the price of an event."""

import math

from training.config import ActivityConfig, OptimizerConfig


def learning_rate(config: OptimizerConfig, done: int, total: int) -> float:
    """Linear warm-up over warmup_tokens, then a cosine to final_fraction of the peak."""
    if done < config.warmup_tokens:
        return config.learning_rate * (done + 1) / (config.warmup_tokens + 1)
    progress = (done - config.warmup_tokens) / max(1, total - config.warmup_tokens)
    shape = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * (config.final_fraction + (1.0 - config.final_fraction) * shape)


def event_price(config: ActivityConfig, firing_rate: float, done: int, total: int) -> float:
    """Nats charged for one event of a layer of which firing_rate (a share) fires per step."""
    ramp = 1.0 if not config.ramp else min(1.0, done / (config.ramp * total))
    if config.target_rate == 0.0:
        return config.penalty * ramp
    above = (firing_rate - config.target_rate) / (config.band * config.target_rate)
    return config.penalty * ramp * min(1.0, max(0.0, above))
