"""Package in, text out: the same bytes in process and from a server, whatever else runs."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from command_line import run, server, text_of
from tiny_spikegpt import tiny_spikegpt_package
from tiny_spikingbrain import tiny_spikingbrain_package

from spiketrain import runtime
from spiketrain.commands.model_argument import DEFAULT_TABLE_BYTES
from spiketrain.serving.client.client import Client
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.engine.sync_stream import sync_stream
from spiketrain.serving.request.events import Delta, Finish, PromptInfo
from spiketrain.serving.request.request import Request

PROMPTS = ["a", "The cat", "once upon a time " * 20, "héllo 🦀", "zz", "The dog"]


def request(index, **fields):
    return Request(PROMPTS[index % len(PROMPTS)], seed=index, max_new_tokens=24, **fields)


@pytest.mark.slow
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


@pytest.mark.slow
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
    with sync_stream(engine, request) as events:
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
