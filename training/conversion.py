"""An artificial network becomes a spiking one: copy, calibrate, fine-tune; each step is measured.

The teacher is a finished run of `spiketrain train`; the folder of the conversion keeps a student of
every step, so that a fine-tuning that was cut off goes on.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiketrain.lm.conversion import gru, rwkv
from spiketrain.lm.conversion.thresholds import calibrate_thresholds
from spiketrain.runtime.durable_files import new_folder, read_all, write_file
from spiketrain.training.config import ConfigError, TrainConfig, find_data, load_config
from spiketrain.training.data import read_text
from spiketrain.training.encoder import file_encoder, folder_encoder
from spiketrain.training.evaluate import evaluate
from spiketrain.training.loop import Trainer
from spiketrain.training.progress import step_bar, tell
from spiketrain.training.run_folder import save_tensors
from spiketrain.training.teachers import run_model

LANES, STEPS = 8, 256  # of the text that thresholds are calibrated on
MIN_STEPS = 16


@dataclass(frozen=True)
class Recipe:
    """Which family of teacher a recipe takes, how it copies and how it calibrates.

    variants: what `copy` can make of a teacher, the usual one first.  kept: fields of the copy's
    config that a fine-tuning takes from it.
    """

    family: str
    variants: tuple[str, ...]
    copy: Callable[[Any, str], Any]
    calibrate: Callable[[Any, Tensor, float, float], list[float]]
    kept: tuple[str, ...]


RECIPES = {
    "gru-to-egru": Recipe(
        "gru",
        gru.VARIANTS,
        lambda teacher, variant: gru.egru_from_gru(teacher.state_dict(), variant),
        calibrate_thresholds,
        gru.KEPT,
    ),
    "rwkv-to-spikegpt": Recipe(
        "spikegpt",
        rwkv.VARIANTS,
        rwkv.spikegpt_from_rwkv,
        rwkv.calibrate_neurons,
        ("neuron_position", *rwkv.KEPT),
    ),
}


@dataclass(frozen=True)
class Conversion:
    """What is asked: a recipe of RECIPES, the teacher's run, and texts (UTF-8, plain or .xz).

    Firing rates are calibrated into [low, high] on the start of `calibration`; every step is
    measured on `measure`.  variant: one of the recipe's, None for the usual one.  fine_tune: a
    training recipe without sizes, whose [distil] takes the teacher; None ends after calibration.
    """

    recipe: str
    teacher: Path
    calibration: Path
    measure: Path
    low: float
    high: float
    variant: str | None = None
    fine_tune: Path | None = None
    overrides: tuple[str, ...] = ()


def convert_run(
    options: Conversion, folder: Path, quiet: bool = False
) -> tuple[Any, dict[str, Any]]:
    """The spiking model and the report of its making; intermediate results go to `folder`.

    The report lists teacher, copy, calibrated and fine-tuned with bits per byte, token perplexity
    and firing rates.  Raises ConfigError on an unknown recipe or variant, a teacher that it does
    not fit or texts that are too short.
    """
    if options.recipe not in RECIPES:
        raise ConfigError(f"recipe must be one of {tuple(RECIPES)}, got {options.recipe!r}")
    recipe = RECIPES[options.recipe]
    variant = options.variant or recipe.variants[0]
    if variant not in recipe.variants:
        raise ConfigError(
            f"variant of {options.recipe} must be one of {recipe.variants}, got {variant!r}"
        )
    check_fine_tuning(options)
    teacher = run_model(options.teacher, recipe.family)
    student = _copy(recipe, teacher, variant, options.teacher)
    text = Text(options, quiet=quiet)
    stages = [text.measure("teacher", teacher)]
    stages.append(text.measure("copied", student))
    recipe.calibrate(student, text.calibration, options.low, options.high)
    stages.append(text.measure("calibrated", student))
    if options.fine_tune is not None:
        student, seconds = fine_tune(options, recipe, student, folder, quiet)
        stages.append(text.measure("fine-tuned", student) | {"seconds": seconds})
    report = {
        "recipe": options.recipe,
        "variant": variant,
        "firing_rate_range": [options.low, options.high],
        "measured_on": options.measure.name,
        "teacher_seconds": result_of(options.teacher).get("seconds"),
        "stages": stages,
    }
    return student, report


class Text:
    """The texts of a conversion as tokens of the teacher's vocabulary; steps: see `evaluate`."""

    def __init__(self, options: Conversion, steps: int = 128, quiet: bool = False) -> None:
        encoder = folder_encoder(options.teacher)
        self._steps, self._quiet = steps, quiet
        self.vocab_size = encoder.vocab_size
        ids = encoder.stream(options.calibration).astype(np.int64)
        if len(ids) < LANES * STEPS:
            raise ConfigError(
                f"{options.calibration}: must have at least {LANES * STEPS} tokens, got {len(ids)}"
            )
        self.calibration = torch.from_numpy(ids[: LANES * STEPS]).view(LANES, STEPS)
        self._stream = encoder.stream(options.measure)
        self._bytes = len(read_text(options.measure).encode())

    def measure(self, name: str, model: Any) -> dict[str, Any]:
        """Bits per byte, perplexity and firing rates of `model` at the step `name`."""
        with step_bar(f"measuring {name}", self._quiet) as on_progress:
            result = evaluate(
                model, self._stream, self._bytes, steps=self._steps, on_progress=on_progress
            )
        if not self._quiet:
            tell(f"{name}: {result['bits_per_byte']:.4f} bits per byte")
        return {
            "stage": name,
            "parameters": sum(p.numel() for p in model.parameters()),
            "bits_per_byte": result["bits_per_byte"],
            "token_perplexity": float(torch.tensor(result["nll"]).exp()),
            "firing_rates": result["firing_rates"],
        }


def calibration_ids(tokenizer: Path, text: Path) -> Tensor:
    """The start of a text in LANES lanes of STEPS tokens, or of as many as there are (at least 16).

    tokenizer: a file *.model or *.json.  Raises ConfigError on a text that is too short.
    """
    ids = file_encoder(tokenizer).stream(text).astype(np.int64)[: LANES * STEPS]
    steps = len(ids) // LANES
    if steps < MIN_STEPS:
        least = LANES * MIN_STEPS
        raise ConfigError(f"{text}: must have at least {least} tokens, got {len(ids)}")
    return torch.from_numpy(ids[: LANES * steps]).view(LANES, steps)


def _copy(recipe: Recipe, teacher: Any, variant: str, run: Path) -> Any:
    """The spiking copy; ConfigError where the recipe's own rules refuse the run's model."""
    try:
        return recipe.copy(teacher, variant)
    except ValueError as error:
        raise ConfigError(f"{run}: {error}") from error


def fine_tune(
    options: Conversion, recipe: Recipe, student: Any, folder: Path, quiet: bool
) -> tuple[Any, float]:
    """Train `student` on by the recipe asked.fine_tune; the trained model and its seconds."""
    assert options.fine_tune is not None
    start = folder / "calibrated"
    tokenizer = folder_encoder(options.teacher).file
    with new_folder(start) as draft:
        write_file(draft / tokenizer.name, read_all(tokenizer))
        save_tensors(draft / "checkpoint.pt", {"model": student.state_dict()})
    config = _fine_tuning(options, start)
    kept = {name: getattr(student.config, name) for name in recipe.kept}
    config = config.model_copy(update={"model": kept | config.model})
    trainer = Trainer(config, options.fine_tune, folder / "fine-tuned", resume=True)
    result = trainer.run(quiet)
    return trainer.model.eval(), result["seconds"]


def check_fine_tuning(options: Conversion) -> TrainConfig | None:
    """The recipe asked.fine_tune, if any; ConfigError if it is unsound or lacks its texts."""
    if options.fine_tune is None:
        return None
    config = _fine_tuning(options, options.teacher)
    for name in (config.data.train, config.data.valid, config.data.test):
        if name:
            find_data(name, options.fine_tune.resolve().parent)
    return config


def _fine_tuning(options: Conversion, start: Path) -> TrainConfig:
    """The recipe asked.fine_tune from the run `start` on."""
    assert options.fine_tune is not None
    encoder = folder_encoder(options.teacher)
    overrides = [
        f"data.tokenizer={(start / encoder.file.name).resolve()}",
        *([f"data.end_of_text={encoder.eos_id}"] if encoder.file.suffix == ".json" else []),
        f"run.start_from={start.resolve()}",
        f"distil.teacher={options.teacher.resolve()}",
        *options.overrides,
    ]
    return load_config(options.fine_tune, overrides)


def result_of(run: Path) -> dict[str, Any]:
    """What a finished run measured, {} if `run` is none."""
    path = run / "result.json"
    result: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return result
