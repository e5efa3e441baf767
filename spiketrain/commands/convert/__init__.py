"""`spiketrain convert`: a checkpoint becomes a runtime package.

options.py, checkpoint_options.py and recipe_options.py say which options each kind of source has;
kinds.py chooses the kind; command.py makes the command line of them; the other modules do the work.
"""

from spiketrain.commands.convert.command import app

__all__ = ["app"]
