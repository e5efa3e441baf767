"""A Llama or Qwen becomes a spiking model: map, distil, spike, silence, round; each is measured.

The teacher is a finished run of family "llama" or a Hugging Face directory.  Everything is measured
in chunks of the teacher's context, each from nothing.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spiketrain.lm.conversion import transformer
from spiketrain.lm.conversion.error_feedback import feedback_codes, round_with_feedback
from spiketrain.lm.conversion.sparsity import calibrate_sparsity
from spiketrain.lm.families.spikingbrain.formats import Formats
from spiketrain.lm.families.spikingbrain.neurons import Linear
from spiketrain.lm.stored import Stored
from spiketrain.training.config import ConfigError, load_config
from spiketrain.training.conversion import (
    Conversion,
    Recipe,
    Text,
    check_fine_tuning,
    fine_tune,
    result_of,
)
from spiketrain.training.progress import step_bar
from spiketrain.training.teachers import CONTEXT, load_teacher

NAME = "transformer-to-spiking"
KEPT = (*transformer.KEPT, "vocab_size", "attn_layers", "sliding_window", "window_keys")
SEED = 0  # of the random weights that new gates start from
RECIPE = Recipe(
    "llama",
    (*transformer.VARIANTS, transformer.CHOSEN),
    transformer.spikingbrain_from_transformer,
    lambda *_: [],
    KEPT,
)


@dataclass(frozen=True)
class Made:
    """The model with rounded weights, its matrices' stored tensors, and the report."""

    model: Any
    codes: dict[str, Stored]
    report: dict[str, Any]


def convert_transformer(
    options: Conversion, sparsity: float | None, weights: str, folder: Path, quiet: bool = False
) -> Made:
    """The spiking model and how it was made; intermediate results go to `folder`.

    sparsity: share of zero inputs that dead zones are set for, None for none.  weights: format of
    the package; int8 and int4 are rounded with error feedback on asked.calibration.  Raises
    ConfigError on an unknown variant, a teacher of another kind or texts that are too short.  The
    caller's random numbers change nothing and stay as they are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return _converted(options, sparsity, weights, folder, quiet)


def _converted(
    options: Conversion, sparsity: float | None, weights: str, folder: Path, quiet: bool
) -> Made:
    """See `convert_transformer`."""
    variant = options.variant or RECIPE.variants[0]
    if variant not in RECIPE.variants:
        raise ConfigError(f"variant of {NAME} must be one of {RECIPE.variants}, got {variant!r}")
    recipe = check_fine_tuning(options)
    context = CONTEXT if recipe is None else recipe.run.steps  # of a directory's teacher
    teacher = load_teacher(options.teacher, RECIPE.family, context).eval()
    text = Text(options, teacher.config.max_position_embeddings, quiet)
    if text.vocab_size > teacher.config.vocab_size:
        raise ConfigError(
            f"{options.teacher}: the tokenizer must have at most the model's "
            f"{teacher.config.vocab_size} tokens, got {text.vocab_size}"
        )
    stages = [text.measure("teacher", teacher)]
    if variant == transformer.CHOSEN:
        with step_bar("choosing layers", quiet) as on_progress:
            layers = transformer.sensitive_layers(teacher, text.calibration, on_progress)
        student = transformer.spikingbrain_from_transformer(teacher, "hybrid", layers)
    else:
        student = transformer.spikingbrain_from_transformer(teacher, variant)
    half_life = None
    if variant.endswith(("-spread", "-published")):
        transformer.match_outputs(student, teacher, text.calibration)
    else:
        with step_bar("fitting decays", quiet) as on_progress:
            half_life = transformer.fit_decays(student, teacher, text.calibration, on_progress)
    del teacher  # distillation reads it again
    stages.append(text.measure("mapped", student))
    if options.fine_tune is not None:
        fields = load_config(options.fine_tune, list(options.overrides)).model
        if fields.get("spikes"):
            spiking_fields = {name: value for name, value in fields.items() if name != "family"}
            student = transformer.with_spikes(student, **spiking_fields)
            stages.append(text.measure("spiking", student))
        student, seconds = fine_tune(options, RECIPE, student, folder, quiet)
        stages.append(text.measure("distilled", student) | {"seconds": seconds})
    if not student.config.spikes:
        student = transformer.with_spikes(student)
        stages.append(text.measure("spiking", student))
    silenced = None
    if sparsity is not None:
        with step_bar("setting dead zones", quiet) as on_progress:
            silenced = calibrate_sparsity(student, text.calibration, sparsity, on_progress)
        stages.append(text.measure("sparse", student))
    codes: dict[str, Stored] = {}
    if weights in ("int8", "int4"):
        nearest = copy.deepcopy(student)
        _round_to_nearest(nearest, weights)
        stages.append(text.measure(f"{weights}, rounded to nearest", nearest))
        with step_bar(f"rounding to {weights}", quiet) as on_progress:
            codes = feedback_codes(student, text.calibration, weights, on_progress)
        stages.append(text.measure(weights, student))
    config = student.config
    report = {
        "recipe": NAME,
        "variant": variant,
        "measured_on": options.measure.name,
        "context": config.max_position_embeddings,
        "window_keys": config.window_keys if config.attn_layers else None,
        "attn_layers": config.attn_layers,
        "fitted_half_life": half_life,
        "teacher_seconds": result_of(options.teacher).get("seconds"),
        "teacher_tokens": result_of(options.teacher).get("tokens"),
        "calibration": silenced,
        "stages": stages,
    }
    return Made(student, codes, report)


@torch.no_grad()
def _round_to_nearest(model: Any, weights: str) -> None:
    """Weights of the blocks' matrices as plain rounding stores them: no input tells of another."""
    form = Formats.of(model.config, weights)
    for name, module in model.model.layers.named_modules():
        if isinstance(module, Linear) and name.endswith("_proj"):
            matrix_form = form.down if name.endswith("down_proj") else form.body
            inputs = module.weight.shape[1]
            values, _ = round_with_feedback(module.weight.t(), torch.eye(inputs), matrix_form)
            module.weight.copy_(values.t())
