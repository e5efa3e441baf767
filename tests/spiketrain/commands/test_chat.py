"""`spiketrain chat` as a pipe sees it: lines in, answers out."""

import io
import sys

import pytest
import structlog
from tiny import tiny_egru_package

from spiketrain.cli import main
from spiketrain.serving.rpc.server import Server

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
GREEDY = ("--temperature", "0", "--max-new-tokens", "12")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny_egru_package(tmp_path_factory.mktemp("package") / "tiny")


@pytest.fixture
def call(monkeypatch, capsys):
    def call(*arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", ["spiketrain", "chat", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, *capsys.readouterr()

    yield call
    structlog.reset_defaults()


def test_without_a_template_the_model_continues_what_both_wrote(call, package):
    status, out, err = call("--model", package, *GREEDY, stdin="Once\n\nupon\n/quit\nno\n")
    assert (status, err) == (0, "")
    first, second = out.splitlines()
    alone = call("--model", package, *GREEDY, stdin="Once\n")[1]
    assert alone == first + "\n"
    fresh = call("--model", package, *GREEDY, stdin="upon\n")[1]
    assert second + "\n" != fresh  # it remembered


def test_reset_starts_anew(call, package):
    _, out, _ = call("--model", package, *GREEDY, stdin="Once\n/reset\nOnce\n")
    first, second = out.splitlines()
    assert first == second


def test_with_a_template_the_model_answers_messages(call, package, tmp_path):
    template = tmp_path / "chat.jinja"
    template.write_text(TEMPLATE)
    flags = ("--model", package, "--chat-template", template, "--seed", 3, "--max-new-tokens", 12)
    status, out, err = call(*flags, "--system", "Be brief.", stdin="Hi\nAgain\n")
    assert (status, err) == (0, "")
    assert out == call(*flags, "--system", "Be brief.", stdin="Hi\nAgain\n")[1]
    assert out != call(*flags, stdin="Hi\nAgain\n")[1]  # it saw the system message


def test_a_system_message_needs_a_template(call, package):
    status, out, err = call("--model", package, "--system", "x", stdin="Hi\n")
    assert (status, out) == (1, "")
    assert "system must be left out" in err


def test_a_server_has_its_own_model(call):
    status, _, err = call("--server", "127.0.0.1:1", "--model", "x")
    assert status == 2
    assert "a server has its own --model" in err


def test_nobody_there_is_one_line(call):
    status, out, err = call("--server", "127.0.0.1:1", stdin="Hi\n")
    assert (status, out) == (1, "")
    assert err.startswith("error: server: UNAVAILABLE")
    assert err.count("\n") == 1


def test_a_chat_without_a_server_listens_on_a_free_port(call, package, monkeypatch):
    ports = []
    listen = Server._listen

    def noted(server):
        ports.append(server._config.port)
        return listen(server)

    monkeypatch.setattr("spiketrain.serving.rpc.server.Server._listen", noted)
    call("--model", package, stdin="Hi\n")
    assert ports == [0]
