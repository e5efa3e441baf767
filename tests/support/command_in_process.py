"""The `spiketrain` command in this process, where tests can look into it."""

import pytest

from spiketrain.cli import main


def call(monkeypatch, *arguments):
    """Exit code of the command line."""
    monkeypatch.setattr("sys.argv", ["spiketrain", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code or 0
