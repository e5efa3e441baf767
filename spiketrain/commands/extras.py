"""Names the missing extra of a command."""

import importlib.util

from spiketrain.runtime.errors import SpiketrainError


def need_train_extra() -> None:
    """Raise SpiketrainError naming the extra unless torch and its companions are installed."""
    lacking = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if lacking:
        raise SpiketrainError(
            f"{' and '.join(lacking)} not installed: pip install 'spiketrain[train]'"
        )


def need_plot_extra() -> None:
    """Raise SpiketrainError naming the extra unless matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise SpiketrainError("matplotlib not installed: pip install 'spiketrain[plot]'")


def need_eval_extra() -> None:
    """Raise SpiketrainError naming the extra unless lm-evaluation-harness is installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise SpiketrainError("lm_eval not installed: pip install 'spiketrain[eval]'")


def need_nir_extra() -> None:
    """Raise SpiketrainError naming the extra unless nir is installed."""
    if importlib.util.find_spec("nir") is None:
        raise SpiketrainError("nir not installed: pip install 'spiketrain[nir]'")
