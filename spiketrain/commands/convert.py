"""`spiketrain convert`: a checkpoint becomes a runtime package."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spiketrain.commands.convert_dial import (
    add_dials,
    check_places,
    check_range,
    check_sparsity,
)
from spiketrain.commands.output_path import check_input

FORMATS = ("float32", "bfloat16", "int8", "int4")
CACHES = ("float32", "bfloat16", "int8")

app = typer.Typer(add_completion=False)


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(help="A training run, a Hugging Face directory, or an official .cpt, .pth."),
    ],
    target: Annotated[Path, typer.Argument(help="The package to write.")],
    weights: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16, int8 or int4; default: the source's precision."),
    ] = None,
    head_weights: Annotated[
        str | None, typer.Option(help="Format of the head alone; default: that of --weights.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="tokenizer.json or .model, or characters (vocab.json), to take along."),
    ] = None,
    extra: Annotated[
        list[Path] | None, typer.Option("--file", help="A further file to take along.")
    ] = None,
    fold_projection: Annotated[
        bool,
        typer.Option(help="EGRU: multiply the projection into the head, which then skips rows."),
    ] = False,
    semantics: Annotated[
        str | None,
        typer.Option(help="What an official .pth is: spikegpt (default) or rwkv4; same keys."),
    ] = None,
    choose: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE: a field for a .pth of another revision. May be repeated."),
    ] = None,
    rescaled: Annotated[
        bool,
        typer.Option("--rescaled", help="A Hugging Face RWKV-4 saved after evaluation: undo it."),
    ] = False,
    window_keys: Annotated[
        int | None,
        typer.Option(min=1, help="SpikingBrain: keys a query sees; default: its window + 1."),
    ] = None,
    down_proj: Annotated[
        str | None,
        typer.Option(help="SpikingBrain: published (default; reads no spikes) or spiked."),
    ] = None,
    window_cache: Annotated[
        str | None,
        typer.Option(help="SpikingBrain: float32, bfloat16 or int8 keys and values."),
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="SpikingBrain: refuse what needs more, such as 4G.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="SpikingBrain: go on where an attempt was cut off.")
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="gru-to-egru, rwkv-to-spikegpt or transformer-to-spiking: SOURCE is the run of a"
            " GRU, an RWKV-4 or a Llama, or the Hugging Face directory of a Llama, Qwen2 or Qwen3."
        ),
    ] = None,
    calib: Annotated[
        Path | None, typer.Option(help="The text that thresholds are set and dials measured on.")
    ] = None,
    measure: Annotated[
        Path | None,
        typer.Option(help="With --recipe: the text that each step is measured on, else --calib."),
    ] = None,
    target_sparsity: Annotated[
        float | None,
        typer.Option(
            help="With --recipe: share of zero outputs after calibration, else 0.85;"
            " transformer-to-spiking: of zero inputs, else what rounding leaves."
        ),
    ] = None,
    max_dial: Annotated[
        float | None,
        typer.Option(help="How far requests may raise the thresholds of spike counts; above 1."),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            help="With --recipe. gru-to-egru: paired (default; units for h and -h) or single;"
            " rwkv-to-spikegpt: residual (default; as published) or projections (spike-driven);"
            " transformer-to-spiking: hybrid (default), hybrid-chosen (windows where linear layers"
            " cost most) or linear, with first decays that suit the calibration text best;"
            " -spread: from 8 tokens to the context; -published: upstream's."
        ),
    ] = None,
    fine_tune: Annotated[
        Path | None, typer.Option(help="With --recipe: training recipe (TOML) to go on with.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Replace a field of --fine-tune's recipe.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "unknown",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check the source; write nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing package.")] = False,
) -> None:
    """Convert a checkpoint. The source keeps its precision unless --weights says otherwise."""
    for flag, value, allowed in (
        ("--weights", weights, FORMATS),
        ("--head-weights", head_weights, FORMATS),
        ("--semantics", semantics, ("spikegpt", "rwkv4")),
        ("--down-proj", down_proj, ("published", "spiked")),
        ("--window-cache", window_cache, CACHES),
    ):
        if value is not None and value not in allowed:
            rule = f"must be one of {', '.join(allowed)}, got {value}"
            raise typer.BadParameter(rule, param_hint=flag)
    sparse = {"--calib": calib, "--target-sparsity": target_sparsity}
    ours = {"--measure": measure, "--variant": variant, "--fine-tune": fine_tune,
            "--set": override}  # fmt: skip
    spikegpt = {"--semantics": semantics, "--choose": choose, "--rescaled": rescaled}
    spikingbrain = {"--window-keys": window_keys, "--down-proj": down_proj,
                    "--max-memory": max_memory, "--resume": resume}  # fmt: skip
    if recipe is None:
        _refuse(ours, "needs --recipe")
        if not (calib and (target_sparsity or max_dial)):
            both = "--calib with --target-sparsity or --max-dial"
            _refuse(sparse, f"needs --recipe, or of a SpikingBrain {both}")
    else:
        _refuse(spikegpt | {"--dry-run": dry_run}, "excludes --recipe")
    if override and fine_tune is None:
        raise typer.BadParameter("needs --fine-tune", param_hint="--set")
    check_range(max_dial, recipe, variant)
    for path in extra or []:
        check_input(path, "--file")
    if recipe not in (None, "transformer-to-spiking"):
        _refuse({"--window-cache": window_cache}, "is for SpikingBrain")
    choices = _choices(choose or [])
    from spiketrain.commands.extras import need_train_extra

    need_train_extra()
    from spiketrain.commands.tokenizer_files import (
        check_tokenizer,
        tokenizer_beside,
        tokenizer_files,
    )
    from spiketrain.lm.checkpoint import is_sharded_spikingbrain
    from spiketrain.lm.conversion.sparsity import MOST_QUIET
    from spiketrain.lm.export import export_model

    of_counts = recipe in (None, "transformer-to-spiking")
    check_sparsity(target_sparsity, MOST_QUIET if of_counts else 1.0)
    made: dict[str, bytes | Path] = {}
    codes: dict[str, Any] = {}
    published = recipe is None and is_sharded_spikingbrain(source)
    if published:
        _refuse(spikegpt | {"--fold-projection": fold_projection}, "is not for SpikingBrain")
    else:
        _refuse(spikingbrain, "needs a published SpikingBrain directory")
    model: Any = None  # of a published SpikingBrain: it may be larger than memory
    if recipe is None and not published:
        model = _read(source, semantics, choices, rescaled)
        if model.config.model_type != "spikingbrain":
            wanted = {"--target-sparsity": target_sparsity}
            _refuse(wanted, f"needs --recipe with a {model.config.model_type}")
            _refuse({"--window-cache": window_cache}, "is for SpikingBrain")
    elif recipe is not None:
        from spiketrain.commands.convert_recipe import convert_by_recipe
        from spiketrain.runtime.package import check_target

        check_target(target, force)  # before the work, not after it
        work = target.with_name(f"{target.name}.steps")
        model, made, codes = convert_by_recipe(
            recipe, source, calib, measure, target_sparsity, variant, fine_tune, override or [],
            work, weights or "float32",
        )  # fmt: skip
    if fold_projection:
        model = _folded(model)
    if model is not None:
        check_places(model, max_dial)
    if tokenizer is None:
        tokenizer = tokenizer_beside(source)
    files = tokenizer_files(tokenizer) if tokenizer is not None else {}
    if model is not None:
        check_tokenizer(files, model.config.vocab_size)
    if calib and target_sparsity and recipe is None and not published:
        from spiketrain.commands.convert_spikingbrain import make_sparse

        made = make_sparse(model, tokenizer, calib, target_sparsity)
    if calib and max_dial and not published:
        made = add_dials(made, model, tokenizer, calib, max_dial)
    files |= made
    files |= {path.name: path for path in extra or []}
    provenance = {
        "source": source.name,
        "command": f"spiketrain convert {source.name} {target.name}"
        + (f" --weights {weights}" if weights else "")
        + (f" --head-weights {head_weights}" if head_weights else "")
        + " --fold-projection" * fold_projection
        + f" --semantics {semantics}" * bool(semantics)
        + "".join(f" --choose {text}" for text in choose or [])
        + " --rescaled" * rescaled
        + (f" --window-keys {window_keys}" if window_keys else "")
        + (f" --down-proj {down_proj}" if down_proj else "")
        + (f" --window-cache {window_cache}" if window_cache else "")
        + (f" --recipe {recipe}" if recipe else "")
        + (f" --target-sparsity {target_sparsity:g}" if target_sparsity else "")
        + (f" --max-dial {max_dial:g}" if max_dial else "")
        + (f" --variant {variant}" if variant else "")
        + (f" --fine-tune {fine_tune.name}" if fine_tune else ""),
        "licence": licence,
    }
    if published:
        from spiketrain.commands.convert_spikingbrain import Asked, convert_published, memory

        asked = Asked(
            source, target, weights, head_weights, window_keys, down_proj, window_cache,
            memory(max_memory), resume, force, dry_run, tokenizer, calib, target_sparsity,
            max_dial,
        )  # fmt: skip
        convert_published(asked, files, provenance)
        return
    if dry_run:
        typer.echo(f"{source}: {model.config.model_type}, {model.num_parameters():,} parameters")
        return
    fingerprint = export_model(
        model,
        target,
        weights=weights or "float32",
        head=head_weights,
        files=files,
        provenance=provenance,
        force=force,
        codes=codes,
        max_dial=max_dial,
        window_cache=window_cache,
    )
    typer.echo(f"{target}: {fingerprint}")


def _refuse(options: dict[str, Any], rule: str) -> None:
    """A usage error for the first option that is given though it has no use."""
    for flag, value in options.items():
        if value:
            raise typer.BadParameter(f"{rule}, got {value}", param_hint=flag)


def _read(source: Path, semantics: str | None, choices: dict[str, Any], rescaled: bool) -> Any:
    """The model of a training run or a checkpoint; what it is taken for goes to stderr."""
    from spiketrain.lm.checkpoint import Meaning, read_checkpoint

    run = (source / "checkpoint.pt").is_file() and (source / "model").is_dir()
    meaning = Meaning(semantics, choices, rescaled)
    found = read_checkpoint(source / "model" if run else source, meaning)
    for line in found.decisions:
        typer.echo(f"{source}: {line}", err=True)
    return found.model


def _folded(model: Any) -> Any:
    """The model with its projection in its head; a usage error where it has none."""
    from spiketrain.lm.families import egru

    if not isinstance(model, egru.Model) or model.projection is None:
        raise typer.BadParameter(
            f"needs an EGRU with a projection, got {model.config.model_type} without",
            param_hint="--fold-projection",
        )
    return egru.fold_projection(model)


def _choices(texts: list[str]) -> dict[str, Any]:
    """NAME=VALUE with JSON values; a usage error where one is not."""
    import json

    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            if not equals:
                raise ValueError
            found[name] = json.loads(value)
        except ValueError:
            hint = "--choose"
            raise typer.BadParameter(f"must read NAME=VALUE, got {text}", param_hint=hint) from None
    return found
