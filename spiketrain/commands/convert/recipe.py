"""`spiketrain convert --recipe`: an artificial network becomes a spiking one, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiketrain.commands.convert.dial import check_places
from spiketrain.commands.convert.fold import folded
from spiketrain.commands.convert.package import (
    Draft,
    checked_files,
    chosen_tokenizer,
    read_text_with,
    write_model,
)
from spiketrain.commands.convert.recipe_options import (
    GruToEgru,
    RecipeOptions,
    RwkvToSpikeGpt,
    TransformerToSpiking,
)

if TYPE_CHECKING:
    from spiketrain.training.conversion import Conversion

MAX_RATES = 4  # that the table lists one by one
ZERO_OUTPUTS = 0.85  # the usual share after calibration
LOWEST_RATE = 0.8  # of the highest firing rate that calibration leaves a layer


def convert_gru(options: GruToEgru) -> None:
    """Write the EGRU of a GRU's run."""
    draft = _convert_run(options, options.target_sparsity)
    if options.fold_projection:
        draft.model = folded(draft.model)
    write_model(options, draft, checked_files(options, draft))


def convert_rwkv(options: RwkvToSpikeGpt) -> None:
    """Write the SpikeGPT of an RWKV-4's run."""
    draft = _convert_run(options, options.target_sparsity)
    _write(options, draft, options.max_dial)


def convert_transformer_run(options: TransformerToSpiking) -> None:
    """Write the SpikingBrain of a Llama, Qwen2 or Qwen3."""
    from spiketrain.training.transformer_conversion import convert_transformer

    conversion = _conversion(options, options.target_sparsity or 0.0)
    weights = options.weights or "float32"
    made = convert_transformer(conversion, options.target_sparsity, weights, _work(options))
    _print(made.report)
    draft = Draft(model=made.model, report=made.report, codes=dict(made.codes))
    _write(options, draft, options.max_dial, options.window_cache)


def _convert_run(options: RecipeOptions, sparsity: float | None) -> Draft:
    """The spiking copy of a run, calibrated, and fine-tuned if that is wanted."""
    from spiketrain.training.conversion import convert_run

    conversion = _conversion(options, ZERO_OUTPUTS if sparsity is None else sparsity)
    model, report = convert_run(conversion, _work(options))
    _print(report)
    return Draft(model=model, report=report)


def _conversion(options: RecipeOptions, sparsity: float) -> Conversion:
    """What training is told; checks the target before the work, not after it."""
    from spiketrain.runtime.package import check_target
    from spiketrain.training.conversion import Conversion

    check_target(options.target, options.force)
    highest = 1.0 - sparsity
    return Conversion(
        recipe=options.recipe,
        teacher=options.source,
        calibration=options.calibration,
        measure=options.measure or options.calibration,
        low=LOWEST_RATE * highest,
        high=highest,
        variant=options.variant,
        fine_tune=options.fine_tune,
        overrides=options.override,
    )


def _work(options: RecipeOptions) -> Path:
    """The folder of intermediate results, from which a fine-tuning that was cut off goes on."""
    return options.target.with_name(f"{options.target.name}.steps")


def _write(
    options: RecipeOptions, draft: Draft, max_dial: float | None, window_cache: str | None = None
) -> None:
    check_places(draft.model, max_dial)
    files = checked_files(options, draft)
    read_text_with(draft, chosen_tokenizer(options), options.calib, max_dial=max_dial)
    write_model(options, draft, files, max_dial=max_dial, window_cache=window_cache)


def _print(report: dict[str, Any]) -> None:
    """The steps, on stderr: results of a conversion are its package."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{report['recipe']}, {report['variant']}, measured on {report['measured_on']}"
    )
    for name in ("step", "parameters", "bits per byte", "token perplexity", "firing rates"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for stage in report["stages"]:
        table.add_row(
            stage["stage"],
            f"{stage['parameters']:,}",
            f"{stage['bits_per_byte']:.4f}",
            f"{stage['token_perplexity']:.2f}",
            _rates(stage["firing_rates"]),
        )
    Console(stderr=True).print(table)


def _rates(rates: list[float]) -> str:
    """Firing rates of layers, or the mean and the range of many."""
    if len(rates) <= MAX_RATES:
        return ", ".join(f"{100 * rate:.1f} %" for rate in rates)
    mean = sum(rates) / len(rates)
    return f"{100 * mean:.1f} % ({100 * min(rates):.1f} to {100 * max(rates):.1f} %)"
