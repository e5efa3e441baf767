"""Where prompts come from and where text and figures go."""

import subprocess
import sys

import pytest
from command_line import run, text_of

from spiketrain.serving.client.client import Client
from spiketrain.serving.request.request import Request


@pytest.mark.slow
def test_what_is_piped_is_the_text_alone_and_figures_start_a_line(package, address):
    options = ("--seed", 7, "--max-new-tokens", 9)
    with Client(address) as client:
        text = text_of(client.generate_stream(Request("The cat", seed=7, max_new_tokens=9)))
    assert not text.endswith("\n")
    for where in (("--model", package), ("--server", address)):
        apart = run("generate", "The cat", *where, *options)
        assert apart.stdout.decode() == text
        assert apart.stderr.startswith(b"9 tokens (length)")
        joined = run("generate", "The cat", *where, *options, stderr=subprocess.STDOUT)
        assert joined.stdout.decode().startswith(f"{text}\n9 tokens (length)")


def test_a_terminal_gets_the_figures_on_a_line_of_their_own(call, package, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    one = ("--max-new-tokens", 1, "--seed", 7)  # a letter; an end of text would print nothing
    status, text, figures = call("generate", "The cat", "--model", package, *one)
    assert status == 0
    assert text == "t\n"
    assert figures.startswith("1 tokens (length), firing rate")
    assert "touched" not in figures  # a single token comes from the prompt


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_a_closed_standard_input_is_bad_usage(call, arguments):
    assert call("generate", *arguments, stdin=None)[0] == 2


def test_a_long_prompt_may_come_from_standard_input(package, address, call):
    prompt = "once upon a time " * 50
    options = ("--seed", 3, "--no-stats", "--max-new-tokens", 8)
    remote = call("generate", "-", "--server", address, *options, stdin=prompt.encode())
    local = call("generate", "--model", package, *options, stdin=prompt.encode())
    assert remote == local
    status, text, err = remote
    assert (status, err) == (0, "")
    echoed = call("generate", "-", "--echo", "--server", address, *options, stdin=prompt.encode())
    assert echoed == (0, prompt + text, "")


def test_a_constraint_holds_on_the_command_line(call, package):
    flags = ("--model", package, "--regex", "[0-9]{3}", "--seed", 1)
    status, out, _ = call("generate", "The cat", *flags)
    assert status == 0
    assert len(out) == 3
    assert out.isdecimal()
