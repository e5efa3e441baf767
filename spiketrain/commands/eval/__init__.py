"""`spiketrain eval`: what a model achieves on text, and what it does while it reads.

command.py lists the subcommands, each a module of its name; models.py opens what they measure.
"""

from spiketrain.commands.eval.command import app

__all__ = ["app"]
