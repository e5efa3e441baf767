"""Package in, text out: in process, from a server process, and the same bytes from both."""

import asyncio
import io
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import structlog
import trustme
from tiny import tiny_egru_package
from tiny_spikegpt import tiny_spikegpt_package
from tiny_spikingbrain import tiny_spikingbrain_package

import runtime
from serving.blocking import stream_blocking
from serving.client import Client
from serving.config import ServingConfig
from serving.engine import Engine
from serving.events import Delta, Finish, PromptInfo
from serving.request import Request
from spiketrain.cli import main
from spiketrain.commands.model_argument import DEFAULT_TABLE_BYTES

PATIENCE_S = 30.0
PROMPTS = ["a", "The cat", "once upon a time " * 20, "héllo 🦀", "zz", "The dog"]
# Greedy, the tiny model never ends a text by itself.
ENDLESS = {"temperature": 0.0, "max_new_tokens": 60000}
ENDLESS_FLAGS = ("--temperature", "0", "--max-new-tokens", "60000")
# As a user's shell would run it, with torch out of reach.
COMMAND = [
    sys.executable,
    "-c",
    "import sys; sys.modules['torch'] = None; from spiketrain.cli import main; main()",
]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny_egru_package(tmp_path_factory.mktemp("package") / "tiny")


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


def run(*arguments, **options):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE_S,
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


@contextmanager
def server(package, *arguments):
    """A server process; the value is the process, the first line it prints, and its address."""
    process = subprocess.Popen(
        [*COMMAND, "serve", str(package), "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        line = process.stdout.readline().decode()
        assert line.startswith("listening on "), process.stderr.read().decode()
        yield process, line.removeprefix("listening on ").strip()
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def address(package):
    with server(package) as (_, address):
        yield address


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, Delta))


def request(index, **fields):
    return Request(PROMPTS[index % len(PROMPTS)], seed=index, max_new_tokens=24, **fields)


def test_in_process_and_over_grpc_give_the_same_text_for_the_same_seed(package, address):
    sampling = ("--seed", 7, "--max-new-tokens", 40, "--temperature", "0.7", "--top-p", "0.9")
    local = run("generate", "The cat", "--model", package, *sampling)
    remote = run("generate", "The cat", "--server", address, *sampling)
    assert local.returncode == remote.returncode == 0, local.stderr + remote.stderr
    assert local.stdout == remote.stdout
    assert len(local.stdout) > 10
    for result in (local, remote):
        assert b"seed 7" in result.stderr
        assert b"tokens/s" in result.stderr
        assert b"firing rate" in result.stderr
        assert b"weights touched per token" in result.stderr


@pytest.mark.parametrize(
    ("write", "fields"),
    [
        (tiny_spikegpt_package, {}),
        (tiny_spikegpt_package, {"weights": "int4", "neuron_position": "projections"}),
        (tiny_spikingbrain_package, {"weights": "int4-go", "head": "int4-gi"}),
    ],
)
def test_a_package_streams_over_grpc_what_it_gives_in_process(tmp_path, write, fields):
    package = write(tmp_path / "tiny", **fields)
    model = runtime.load_model(package, threads=2)
    with Engine(model, ServingConfig(max_batch_size=1)) as engine:
        expected = [alone(engine, request(index)) for index in range(6)]
    with server(package, "--table-bytes", "0") as (_, address), ThreadPoolExecutor(6) as pool:

        def call(index):
            with Client(address) as client:
                return events_of(client.generate_stream(request(index)))

        assert list(pool.map(call, range(6))) == expected
    activity = expected[0][-1]
    assert 0 < activity.events < activity.neurons


def test_another_seed_gives_another_text(address):
    with Client(address) as client:
        texts = {text_of(client.generate_stream(Request("The cat", seed=s))) for s in (1, 2)}
    assert len(texts) == 2


def test_a_chosen_seed_is_reported_and_gives_the_text_again(address):
    with Client(address) as client:
        first = list(client.generate_stream(Request("The cat")))
        assert isinstance(first[0], PromptInfo)
        again = list(client.generate_stream(Request("The cat", seed=first[0].seed)))
    assert text_of(first) == text_of(again)


def test_whatever_else_runs_a_request_gives_the_same_bytes(package):
    model = runtime.load_model(package)

    def of_itself(index):
        with Engine(model, ServingConfig(max_batch_size=1)) as engine:
            return alone(engine, request(index))

    async def together(indices):
        config = ServingConfig(max_batch_size=5, prefill_chunk=3, prefill_chunk_idle=7)

        async def one(engine, index):
            async with engine.stream(request(index)) as events:
                return events_of([event async for event in events])

        with Engine(model, config) as engine:
            return await asyncio.gather(*(one(engine, index) for index in indices))

    indices = range(12)
    assert asyncio.run(together(indices)) == [of_itself(index) for index in indices]


def alone(engine, request):
    with stream_blocking(engine, request) as events:
        return events_of(events)


def events_of(events):
    """What must not depend on anything else that runs: all but times and message borders."""
    events = list(events)
    finish = events[-1]
    assert isinstance(finish, Finish)
    tokens = [t for event in events if isinstance(event, Delta) for t in event.token_ids]
    return events[0], text_of(events), tokens, finish.reason, finish.usage, finish.activity


def test_concurrent_calls_over_grpc_give_the_bytes_of_single_ones(address):
    def call(index):
        with Client(address) as client:
            return text_of(client.generate_stream(request(index)))

    single = [call(index) for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(8))) == single


def test_activity_is_reported_and_event_driven(address):
    with Client(address) as client:
        finish = list(client.generate_stream(request(1)))[-1]
    activity = finish.activity
    assert 0.0 < activity.firing_rate < 1.0
    touched = activity.weight_bytes_touched_per_token
    assert 0 < touched < activity.weight_bytes_dense_per_token


def test_the_server_writes_its_port_and_removes_the_file(package, tmp_path):
    port_file = tmp_path / "port"
    with server(package, "--port-file", str(port_file)) as (process, address):
        assert port_file.read_text() == address.rpartition(":")[2] + "\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    assert not port_file.exists()


def test_sigterm_lets_a_running_stream_end(package):
    with server(package) as (process, address), Client(address) as client:
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
        while b"draining" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


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


def test_a_server_that_dies_mid_stream_is_a_clear_error(package):
    with server(package) as (process, address):
        client = subprocess.Popen(
            [*COMMAND, "generate", "a", "--server", address, *ENDLESS_FLAGS],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert client.stdout.read(1)
        process.kill()
        _, err = client.communicate(timeout=PATIENCE_S)
    assert client.returncode == 1
    assert err.startswith(b"error: server: UNAVAILABLE")
    assert err.count(b"\n") == 1


@pytest.mark.parametrize("address", ["", "localhost", ":50051", "127.0.0.1:99999", "h:0", "h:x"])
def test_an_address_without_a_good_port_is_refused(call, address):
    status, _, err = call("generate", "x", "--server", address)
    assert status == 1
    assert err.startswith("error: server must be HOST:PORT")


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_a_closed_standard_input_is_bad_usage(call, arguments):
    assert call("generate", *arguments, stdin=None)[0] == 2


def test_a_port_file_that_cannot_be_written_leaves_nothing(call, package, tmp_path):
    (tmp_path / "taken").mkdir()
    status, _, err = call("serve", package, "--port", 0, "--port-file", tmp_path / "taken")
    assert status == 1
    assert err.splitlines()[-1].startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_limits_that_no_message_can_hold_are_refused(call, package):
    status, _, err = call("serve", package, "--max-queue", 10**12)
    assert status == 1
    assert err == f"error: max_queue must be an integer from 0 to 2147483647, got {10**12}\n"


def test_a_table_too_large_for_table_bytes_changes_no_text(package, call):
    options = ("--seed", 3, "--no-stats", "--max-new-tokens", 8)
    texts = {
        call("generate", "The cat", "--model", package, *options, "--table-bytes", most)
        for most in (0, 1 << 20)
    }
    assert len(texts) == 1
    assert texts.pop()[0] == 0


def test_the_commands_default_table_bytes_are_the_runtimes():
    assert DEFAULT_TABLE_BYTES == runtime.model.DEFAULT_TABLE_BYTES


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


def test_ctrl_c_ends_a_generation_without_a_traceback(package):
    process = subprocess.Popen(
        [*COMMAND, "generate", "a", "--model", str(package), *ENDLESS_FLAGS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
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


def test_a_setting_that_is_wrong_is_one_line(call, package, monkeypatch):
    monkeypatch.setenv("SPIKETRAIN_MAX_QUEUE", "many")
    status, out, err = call("serve", package)
    assert (status, out) == (1, "")
    assert err == "error: environment: SPIKETRAIN_MAX_QUEUE must be an integer, got 'many'\n"


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


def test_a_constraint_holds_on_the_command_line(call, package):
    flags = ("--model", package, "--regex", "[0-9]{3}", "--seed", 1)
    status, out, _ = call("generate", "The cat", *flags)
    assert status == 0
    assert len(out) == 3
    assert out.isdecimal()
