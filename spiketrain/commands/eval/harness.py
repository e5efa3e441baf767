"""`spiketrain eval harness`: tasks of lm-evaluation-harness on a package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from spiketrain.commands.extras import need_eval_extra
from spiketrain.commands.model_argument import (
    BUNDLED,
    NO_DIAL,
    DialOption,
    ModelArgument,
    model_directory,
)


def harness(
    tasks: Annotated[str, typer.Option(help="Names of tasks, with commas between them.")],
    model: ModelArgument = BUNDLED,
    include_path: Annotated[
        Path | None, typer.Option(help="Folder with further tasks (.yaml).")
    ] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Examples in the context.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences in one call of the model.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Documents of a task.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the model.")] = 1,
    seed: Annotated[int, typer.Option(help="Of tasks that sample.")] = 0,
    dial: DialOption = NO_DIAL,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run tasks of lm-evaluation-harness (extra `eval`)."""
    need_eval_extra()
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import make_table

    from spiketrain.evaluation.harness import SpiketrainLM
    from spiketrain.runtime.errors import DataError

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    manager = TaskManager(include_path=str(include_path) if include_path else None)
    unknown = [name for name in names if not manager.match_tasks([name])]
    if unknown or not names:
        raise DataError(f"tasks must be known to the harness, got {unknown or tasks!r}")
    loaded = SpiketrainLM(str(model_directory(model)), batch, threads, seed, dial)
    found = simple_evaluate(
        loaded,
        tasks=list(names),
        num_fewshot=num_fewshot,
        limit=limit,
        task_manager=manager,
        log_samples=False,
        random_seed=seed,
    )
    of = {
        "fingerprint": loaded.model.fingerprint,
        "tokenizer_hash": loaded.tokenizer_name,
        "dial": loaded.model.dial,
    }
    if as_json:
        kept = ("results", "versions", "n-shot", "n-samples", "configs")
        shown = {key: found[key] for key in kept if key in found}
        print(json.dumps({**shown, **of}, default=str))
    else:
        print(make_table(found))
        print("\n".join(f"{name}: {value}" for name, value in of.items()))
