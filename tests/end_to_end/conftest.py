"""A package, a server of it, and the command line in this process."""

import io
import sys

import pytest
import structlog
from command_line import server
from tiny import tiny_egru_package

from spiketrain.cli import main


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny_egru_package(tmp_path_factory.mktemp("package") / "tiny")


@pytest.fixture(scope="module")
def address(package):
    with server(package) as (_, address):
        yield address


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command in this process: much faster than a process of its own."""

    def call(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["spiketrain", *map(str, arguments)])
        opened = None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
        monkeypatch.setattr(sys, "stdin", opened)
        monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, *capsys.readouterr()

    yield call
    structlog.reset_defaults()
