"""Flags of `spiketrain generate`: each becomes the field of its name, in process and over gRPC."""

import io
import json
import sys
from dataclasses import fields

import pytest
import structlog
from tiny import tiny_egru_package

from spiketrain import runtime
from spiketrain.cli import main
from spiketrain.commands.generate import NOT_FIELDS, generate
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.logs import log_to_stderr
from spiketrain.serving.request.request import Request
from spiketrain.serving.rpc.local import serving_locally

NOT_FLAGS = {"session"}  # of a request: what only makes sense over several calls


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny_egru_package(tmp_path_factory.mktemp("package") / "tiny")


@pytest.fixture(scope="module")
def address(package):
    engine = Engine(runtime.load_model(package), ServingConfig(port=0))
    log_to_stderr("error")  # also of a request that ends between two tests
    with serving_locally(engine, "tiny") as address:
        yield address
    structlog.reset_defaults()


@pytest.fixture(params=["in process", "over gRPC"])
def call(request, package, address, monkeypatch, capsys):
    where = {"in process": ("--model", str(package)), "over gRPC": ("--server", address)}

    def call(*arguments):
        flags = [*map(str, arguments), *where[request.param], "--seed", "7"]
        monkeypatch.setattr(sys, "argv", ["spiketrain", "generate", *flags])
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
        log_to_stderr("error")  # of the server, which is in this process
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, *capsys.readouterr()

    return call


def completions(call, *arguments):
    status, out, err = call(*arguments, "--json")
    assert (status, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def test_every_field_of_a_request_is_a_flag():
    flags = set(generate.__annotations__) - {"return", *NOT_FIELDS}
    assert flags == {field.name for field in fields(Request)} - {"prompt"} - NOT_FLAGS


def test_several_completions_are_lines_of_json(call):
    found = completions(call, "The cat", "--n", 3, "--max-new-tokens", 8)
    assert [one["index"] for one in found] == [0, 1, 2]
    assert len({tuple(one["token_ids"]) for one in found}) == 3
    (alone,) = completions(call, "The cat", "--max-new-tokens", 8)
    for name in ("text", "token_ids", "seed", "reason", "usage"):
        assert alone[name] == found[0][name]


def test_logprobs_are_beside_their_tokens(call):
    flags = ("--logprobs", "--top-logprobs", 2, "--prompt-logprobs", "--max-new-tokens", 4)
    (found,) = completions(call, "--token-ids", "5,6,7", *flags)
    assert [one["token_id"] for one in found["logprobs"]] == found["token_ids"]
    assert [one["token_id"] for one in found["prompt_logprobs"]] == [6, 7]
    for one in found["logprobs"]:
        assert one["logprob"] <= one["top"][0]["logprob"] <= 0.0
        assert len(one["top"]) == 2


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--regex", "[0-9]{4}"), str.isdigit),
        (("--grammar", 'start: "yes" | "no"'), {"yes", "no"}.__contains__),
        (("--json-schema", '{"type": "boolean"}'), {"true", "false"}.__contains__),
        (("--logit-bias", "97=100", "--max-new-tokens", 3), "aaa".__eq__),
        (("--allowed-token-ids", 98, "--max-new-tokens", 2), "bb".__eq__),
        (("--time-limit-s", 1e-9), "".__eq__),
    ],
)
def test_a_flag_does_what_its_field_does(call, flags, expected):
    (found,) = completions(call, "The cat", *flags)
    assert expected(found["text"]), found


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--min-new-tokens", 9, "--max-new-tokens", 4), "min_new_tokens must be"),
        (("--penalty-window", 9), "penalty_window must be left out"),
        (("--stop-token-ids", 10**6), "stop_token_ids"),
        (("--top-logprobs", 3), "top_logprobs must be left out"),
        (("--frequency-penalty", 1000), "frequency_penalty must be"),
        (("--presence-penalty", 1000), "presence_penalty must be"),
        (("--ignore-eos", "--regex", "a"), "ignore_eos must be left out"),
        (("--no-prefix-cache", "--cache-salt", "x"), "cache_salt must be left out"),
        (("--time-limit-s", -1), "time_limit_s must be"),
        (("--timeout-s", 1e-6), "eadline"),
        (("--n", 17, "--json"), "n must be from 1 to 16"),
    ],
)
def test_a_flag_that_breaks_a_rule_is_named(call, flags, words):
    status, out, err = call("The cat", *flags)
    assert (status, out) == (1, "")
    assert words in err


@pytest.mark.parametrize(
    "flags",
    [
        ("--n", 2),
        ("--logprobs",),
        ("--prompt-logprobs",),
        ("--json", "--echo"),
        ("--logit-bias", "97"),
        ("--logit-bias", "a=1"),
        ("--token-ids", "1,x"),
    ],
)
def test_flags_that_make_no_sense_are_bad_usage(call, flags):
    assert call("The cat", *flags)[0] == 2
