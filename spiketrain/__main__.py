"""`python -m spiketrain`: the `spiketrain` command."""

from spiketrain.cli import main

main()
