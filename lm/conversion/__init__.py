"""From an artificial network to a spiking model: copies of weights, calibration of thresholds."""
