"""What every subcommand shares: late imports, exit codes, errors in one line."""

import pytest
import typer

import spiketrain.cli as cli
from spiketrain.runtime.errors import PackageError


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line with `serve` replaced by `body`; return exit code, stdout, stderr."""

    def run(arguments, body=lambda: None):
        app = typer.Typer()
        app.command()(body)
        monkeypatch.setattr(cli, "load_command", lambda name: typer.main.get_command(app))
        monkeypatch.setattr("sys.argv", ["spiketrain", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code, *capsys.readouterr())

    return run


def raising(error):
    def body() -> None:
        raise error

    return body


def test_a_command_that_returns_is_done(run):
    assert run(["serve"]) == (0, "", "")


@pytest.mark.parametrize("error", [PackageError("bad.json: no"), OSError("port 1 is in use")])
def test_an_error_of_the_input_is_one_line_on_stderr(run, error):
    assert run(["serve"], raising(error)) == (1, "", f"error: {error}\n")


def test_a_programming_error_is_not_hidden(run, monkeypatch):
    with pytest.raises(ZeroDivisionError):
        run(["serve"], raising(ZeroDivisionError()))


@pytest.mark.parametrize("arguments", [["sing"], ["--sing"], ["serve", "--sing"]])
def test_bad_usage_is_exit_code_2(run, arguments):
    code, out, err = run(arguments)
    assert (code, out) == (2, "")
    assert "sing" in err


def test_help_names_every_command(run):
    code, out, _ = run(["--help"])
    assert code == 0
    assert all(name in out for name in cli.COMMANDS)


def test_every_command_has_a_module():
    for name in cli.COMMANDS:
        assert cli.load_command(name).name == name
