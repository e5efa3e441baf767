"""A server process from its first line to its end, and clients that lose it or leave."""

import signal

import pytest
import trustme
from command_line import ENDLESS, ENDLESS_FLAGS, PATIENCE_S, run, server, started

from spiketrain.serving.client.client import Client
from spiketrain.serving.request.events import Finish, PromptInfo
from spiketrain.serving.request.request import Request


def test_the_server_writes_its_port_and_removes_the_file(package, tmp_path):
    port_file = tmp_path / "port"
    with server(package, "--port-file", str(port_file)) as (process, address):
        assert port_file.read_text() == address.rpartition(":")[2] + "\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    assert not port_file.exists()


def test_sigterm_lets_a_running_stream_end(package):
    patient = ("--grace-s", "3600")
    with server(package, *patient) as (process, address), Client(address) as client:
        events = client.generate_stream(Request("a", temperature=0.0, max_new_tokens=3000))
        assert isinstance(next(events), PromptInfo)
        process.send_signal(signal.SIGTERM)
        assert isinstance(list(events)[-1], Finish)
        assert process.wait(PATIENCE_S) == 0


def test_sigterm_cuts_off_what_outlasts_the_grace_period(package):
    with server(package, "--grace-s", "0") as (process, address), Client(address) as client:
        events = client.generate_stream(Request([1], **ENDLESS))
        assert isinstance(next(events), PromptInfo)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_a_second_signal_cuts_the_grace_period_short(package):
    with server(package, "--grace-s", "3600") as (process, address), Client(address) as client:
        events = client.generate_stream(Request([1], **ENDLESS))
        assert isinstance(next(events), PromptInfo)
        process.send_signal(signal.SIGTERM)
        while b"draining" not in (line := process.stderr.readline()):
            assert line, "it ended instead"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.slow
def test_a_server_that_dies_mid_stream_is_a_clear_error(package):
    with (
        server(package) as (process, address),
        started("generate", "a", "--server", address, *ENDLESS_FLAGS) as client,
    ):
        assert client.stdout.read(1)
        process.kill()
        _, err = client.communicate(timeout=PATIENCE_S)
    assert client.returncode == 1
    assert err.startswith(b"error: server: UNAVAILABLE")
    assert err.count(b"\n") == 1


def test_a_port_file_that_cannot_be_written_leaves_nothing(call, package, tmp_path):
    (tmp_path / "taken").mkdir()
    status, _, err = call("serve", package, "--port", 0, "--port-file", tmp_path / "taken")
    assert status == 1
    assert err.splitlines()[-1].startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_ctrl_c_ends_a_generation_without_a_traceback(package):
    with started("generate", "a", "--model", package, *ENDLESS_FLAGS) as process:
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert b"Traceback" not in err


def test_settings_come_from_flags_environment_and_file(package, tmp_path, monkeypatch):
    file = tmp_path / "serve.toml"
    file.write_text("max_batch_size = 3\nmax_queue = 4\nmax_new_tokens = 5\nport = 1\n")
    monkeypatch.setenv("SPIKETRAIN_MAX_QUEUE", "6")
    monkeypatch.setenv("SPIKETRAIN_MAX_NEW_TOKENS", "7")
    arguments = ("--config", str(file), "--max-new-tokens", "8")
    with server(package, *arguments) as (_, address), Client(address) as client:
        limits = client.get_model().limits
    assert (limits.max_batch_size, limits.max_queue, limits.max_new_tokens) == (3, 6, 8)


@pytest.mark.slow
def test_a_guarded_server_serves_the_command_line(package, tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    names = {name: str(tmp_path / name) for name in ("ca", "cert", "key", "token", "tokens.toml")}
    authority.cert_pem.write_to_path(names["ca"])
    issued.cert_chain_pems[0].write_to_path(names["cert"])
    issued.private_key_pem.write_to_path(names["key"])
    (tmp_path / "token").write_text("alice-0123456789abcdef\n")
    (tmp_path / "tokens.toml").write_text('[callers.alice]\ntoken = "alice-0123456789abcdef"\n')
    guards = ("--tls-cert", names["cert"], "--tls-key", names["key"])
    guards += ("--tokens-file", names["tokens.toml"], "--host", "localhost")
    asked = ("generate", "The cat", "--seed", 7, "--max-new-tokens", 12)
    with server(package, *guards) as (_, address):
        remote = (*asked, "--server", address, "--ca", names["ca"])
        opened = run(*remote, "--token-file", names["token"])
        refused = run(*remote)
    assert opened.returncode == 0, opened.stderr
    assert opened.stdout == run(*asked, "--model", package).stdout
    assert refused.returncode == 1
    assert b"UNAUTHENTICATED" in refused.stderr
