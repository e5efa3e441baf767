"""What the commands say of bad input, in one line, and of bad usage."""

import pytest
from tiny import tiny_egru_package


def test_a_port_in_use_is_a_clear_error(package, address, call):
    port = address.rpartition(":")[2]
    status, out, err = call("serve", package, "--port", port)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: cannot listen on 127.0.0.1:{port}: ")


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ((), b"", "prompt must hold at least one token"),
        (("-",), b"caf\xe9", "prompt must be valid UTF-8 (byte 3 is not)"),
        (("caf\udce9",), b"", "prompt must be valid UTF-8 (character 3 is not)"),
        (("x", "--top-p", "1.5"), b"", "top_p must be a number in (0, 1], got 1.5"),
        (("x", "--temperature", "-1"), b"", "temperature must be"),
        (("x", "--max-new-tokens", "0"), b"", "max_new_tokens must be from 1"),
        (("x", "--seed", "-1"), b"", "seed must be"),
        (("x", "--stop-sequences", ""), b"", "stop_sequences must each be from 1"),
    ],
)
def test_bad_input_is_one_clear_line(package, address, call, arguments, stdin, message):
    for where in (("--model", package), ("--server", address)):
        status, out, err = call("generate", *arguments, *where, stdin=stdin)
        assert (status, out) == (1, "")
        assert err.startswith("error: ")
        assert message in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("address", ["", "localhost", ":50051", "127.0.0.1:99999", "h:0", "h:x"])
def test_an_address_without_a_good_port_is_refused(call, address):
    status, _, err = call("generate", "x", "--server", address)
    assert status == 1
    assert err.startswith("error: server must be HOST:PORT")


def test_limits_that_no_message_can_hold_are_refused(call, package):
    status, _, err = call("serve", package, "--max-queue", 10**12)
    assert status == 1
    assert err == f"error: max_queue must be an integer from 0 to 2147483647, got {10**12}\n"


def test_another_models_tokenizer_is_refused(call, package, tmp_path):
    larger = tiny_egru_package(tmp_path / "larger", vocab=700, with_tokenizer=True)
    status, _, err = call("generate", "x", "--model", package, "--tokenizer", larger)
    assert status == 1
    assert "tokenizer must have at most the model's" in err


def test_a_server_that_is_not_there_is_a_clear_error(call):
    status, _, err = call("generate", "x", "--server", "127.0.0.1:1")
    assert status == 1
    assert err.startswith("error: server: UNAVAILABLE")


@pytest.mark.parametrize("command", [("serve",), ("generate", "x", "--model")])
def test_a_missing_package_is_a_clear_error(call, command, tmp_path):
    status, _, err = call(*command, tmp_path / "none")
    assert status == 1
    assert err.startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "x", "--server", "h:1", "--model", "m"),
        ("generate", "x", "--server", "h:1", "--threads", "1"),
        ("generate", "x", "--server", "h:1", "--table-bytes", "0"),
        ("serve", "--table-bytes", "-1"),
        ("generate", "x", "--surprise", "1"),
        ("serve", "--max-batch-size", "0"),
        ("serve", "--port", "65536"),
        ("serve", "--log-level", "loud"),
    ],
)
def test_bad_usage_exits_with_2(call, arguments):
    assert call(*arguments)[0] == 2


def test_a_setting_that_is_wrong_is_one_line(call, package, monkeypatch):
    monkeypatch.setenv("SPIKETRAIN_MAX_QUEUE", "many")
    status, out, err = call("serve", package)
    assert (status, out) == (1, "")
    assert err == "error: environment: SPIKETRAIN_MAX_QUEUE must be an integer, got 'many'\n"
