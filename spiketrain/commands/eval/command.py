"""`spiketrain eval`: what a model achieves on text, and what it does while it reads."""

import typer

from spiketrain.commands.eval.activity import activity
from spiketrain.commands.eval.harness import harness
from spiketrain.commands.eval.ppl import ppl

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def evaluate() -> None:
    """Measure a model on text."""


app.command()(ppl)
app.command()(activity)
app.command()(harness)
