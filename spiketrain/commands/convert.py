"""`spiketrain convert`: a checkpoint becomes a runtime package."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="A training run, a Hugging Face directory, or an official .cpt.")
    ],
    target: Annotated[Path, typer.Argument(help="The package to write.")],
    weights: Annotated[
        str, typer.Option(help="float32 (exact) or int8 (integer sums).")
    ] = "float32",
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json or tokenizer.model to take along.")
    ] = None,
    extra: Annotated[
        list[Path] | None, typer.Option("--file", help="A further file to take along.")
    ] = None,
    fold_projection: Annotated[
        bool,
        typer.Option(help="EGRU: multiply the projection into the head, which then skips rows."),
    ] = False,
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "unknown",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check the source; write nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing package.")] = False,
) -> None:
    """Convert a checkpoint. The source keeps its precision unless --weights says otherwise."""
    if weights not in ("float32", "int8"):
        raise typer.BadParameter(f"must be float32 or int8, got {weights}", param_hint="--weights")
    from spiketrain.commands.extras import need_train_extra

    need_train_extra()
    from lm.checkpoint import load_checkpoint
    from lm.export import export_model
    from runtime.errors import SpiketrainError

    run = (source / "checkpoint.pt").is_file() and (source / "model").is_dir()
    model = load_checkpoint(source / "model" if run else source)
    if fold_projection:
        model = _folded(model)
    if tokenizer is None:
        tokenizer = _beside(source)
    files: dict[str, bytes | Path] = {}
    if tokenizer is not None:
        if tokenizer.name not in ("tokenizer.json", "tokenizer.model") or not tokenizer.is_file():
            raise SpiketrainError(
                f"--tokenizer must be a file tokenizer.json or tokenizer.model, got {tokenizer}"
            )
        files = tokenizer_files(tokenizer)
    files |= {path.name: path for path in extra or []}
    if dry_run:
        typer.echo(f"{source}: {model.config.model_type}, {model.num_parameters():,} parameters")
        return
    fingerprint = export_model(
        model,
        target,
        weights=weights,
        files=files,
        provenance={
            "source": source.name,
            "command": f"spiketrain convert {source.name} {target.name} --weights {weights}"
            + " --fold-projection" * fold_projection,
            "licence": licence,
        },
        force=force,
    )
    typer.echo(f"{target}: {fingerprint}")


def _folded(model: Any) -> Any:
    """The model with its projection in its head; a usage error where it has none."""
    from lm.families import egru

    if not isinstance(model, egru.Model) or model.projection is None:
        raise typer.BadParameter(
            f"needs an EGRU with a projection, got {model.config.model_type} without",
            param_hint="--fold-projection",
        )
    return egru.fold_projection(model)


def tokenizer_files(tokenizer: Path) -> dict[str, bytes | Path]:
    """The tokenizer with its companions: special tokens and default sampling parameters."""
    import json

    files: dict[str, bytes | Path] = {tokenizer.name: tokenizer}
    for name in ("tokenizer_config.json", "generation_config.json"):
        companion = tokenizer.with_name(name)
        if companion.is_file():
            files[name] = companion
    if tokenizer.name == "tokenizer.model" and "generation_config.json" not in files:
        import sentencepiece

        model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
        if model.eos_id() >= 0:
            defaults = {"eos_token_id": model.eos_id()}
            files["generation_config.json"] = json.dumps(defaults).encode()
    return files


def _beside(source: Path) -> Path | None:
    folder = source if source.is_dir() else source.parent
    for name in ("tokenizer.json", "tokenizer.model"):
        if (folder / name).is_file():
            return folder / name
    return None
