"""TrainConfig: the fields of a TOML recipe, checked as a whole before any work."""

import os

try:
    import tomllib  # type: ignore[import-not-found, unused-ignore]
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spiketrain.runtime.errors import SpiketrainError


class ConfigError(SpiketrainError):
    """A recipe that cannot be run; the message names file, field, rule and value."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Corpus files (plain or .xz), looked up beside the recipe, then under $SPIKETRAIN_DATA."""

    train: str
    valid: str
    test: str | None = None
    # an existing SentencePiece model or tokenizer.json; trained on `train` if absent
    tokenizer: str | None = Field(default=None, pattern=r"\.(model|json)$")
    end_of_text: int | None = Field(default=None, ge=0)  # token; what a *.json does not say
    vocab_size: int = Field(default=4096, ge=300)


class OptimizerConfig(_Section):
    """Warm-up and cosine decay of the learning rate to `final_fraction` of its peak.

    kind "muon" is for the matrices between embedding and head, all else is AdamW's with `betas`.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = Field(default=1.0, gt=0)
    warmup_tokens: int = Field(default=200_000, ge=0)
    final_fraction: float = Field(default=0.02, ge=0, le=1)


class ActivityConfig(_Section):
    """Activity regularisation: `penalty` nats per event while a layer fires above `target_rate`.

    The price rises linearly over `band` (a fraction of the target) above it, and from 0 over the
    first `ramp` of the run.  target_rate 0 charges every event in full.  A unit that fires in less
    than floor_rate of the steps is paid up to `floor_reward` nats an event instead, in proportion
    to what it lacks, so that units near silence stay trainable.
    """

    penalty: float = Field(default=0.0, ge=0)
    target_rate: float = Field(default=0.0, ge=0, lt=1)
    band: float = Field(default=0.1, gt=0)
    ramp: float = Field(default=0.25, ge=0, le=1)
    floor_rate: float = Field(default=0.0, ge=0, lt=1)
    floor_reward: float = Field(default=0.0, ge=0)


class RunConfig(_Section):
    """How long and on what; `batch` lanes of `steps` tokens make one chunk, one update."""

    tokens: int = Field(ge=1)
    start_from: str | None = None  # a finished run's folder: its weights, nothing else of it
    batch: int = Field(default=32, ge=1)
    steps: int = Field(default=64, ge=1)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=2, ge=1)
    # how often a lane restarts from the zero state, per chunk
    reset_probability: float = Field(default=0.01, ge=0, lt=1)
    checkpoint_minutes: float = Field(default=5.0, gt=0)
    evaluate_every_tokens: int = Field(default=1_000_000, ge=1)
    evaluate_tokens: int = Field(default=200_000, ge=1)


class DistilConfig(_Section):
    """Knowledge distillation: `weight` of the divergence from a teacher beside the text's loss."""

    # the folder of a finished run, or of a Hugging Face Llama, Qwen2, Qwen3: the same tokenizer
    teacher: str
    weight: float = Field(default=0.5, ge=0, le=1)
    temperature: float = Field(default=1.0, gt=0)
    # of the squared distance between the attention outputs of each layer, given the teacher's
    # input, in units of the teacher's; counted in the first attention_until of the run
    attention: float = Field(default=0.0, ge=0)
    attention_until: float = Field(default=0.5, gt=0, le=1)


class TrainConfig(_Section):
    """A whole recipe.  `model.family` picks the architecture, the rest of [model] its fields."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    seed: int = 1
    model: dict[str, Any]
    data: DataConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    activity: ActivityConfig = ActivityConfig()
    distil: DistilConfig | None = None
    run: RunConfig


def load_config(path: Path, overrides: list[str] | None = None) -> TrainConfig:
    """Read a TOML recipe; overrides are `section.field=value` with TOML values.

    Raises ConfigError on unreadable TOML, unknown fields and values out of range.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        for text in overrides or []:
            _override(raw, text)
        repr(raw)  # an error that names a value has to be able to show the value
    except (ValueError, RecursionError) as error:  # also of numbers that Python does not take
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    try:
        return TrainConfig.model_validate(raw)
    except ValidationError as error:
        lines = (
            f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}"
            for e in error.errors()
        )
        raise ConfigError("\n".join(lines)) from error


def find_data(name: str, beside: Path) -> Path:
    """The file `name`: absolute, beside the recipe or under $SPIKETRAIN_DATA; or ConfigError."""
    places = [beside / name]
    if os.environ.get("SPIKETRAIN_DATA"):
        places.append(Path(os.environ["SPIKETRAIN_DATA"], name))
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        f"{name} not found in {', '.join(str(p.parent) for p in places)}; "
        "set SPIKETRAIN_DATA to the folder that holds it"
    )


def _override(raw: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"override {text!r} must read section.field=value")
    *sections, field = key.strip().split(".")
    for section in sections:
        raw = raw.setdefault(section, {})
    try:
        raw[field] = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        raw[field] = value.strip()
