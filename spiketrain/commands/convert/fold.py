"""`spiketrain convert --fold-projection`: the projection goes into the head."""

from typing import Any

import typer


def folded(model: Any) -> Any:
    """The model, of a family that folds, with its projection in its head; else a usage error."""
    from spiketrain.lm.export import family_module

    try:
        return family_module(model.config.model_type).fold_projection(model)
    except ValueError as error:
        rule = f"needs an EGRU with a projection: {error}"
        raise typer.BadParameter(rule, param_hint="--fold-projection") from error
