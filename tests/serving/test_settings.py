import inspect

import pytest

from spiketrain.commands.serve import serve
from spiketrain.serving.errors import ConfigError
from spiketrain.serving.settings import read_settings


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "serve.toml"
        path.write_text(text)
        return str(path)

    return write


def test_without_sources_the_defaults_hold():
    model, serving = read_settings(None, {}, {"port": None})
    assert (model.threads, model.log_level, model.model) == (1, "info", None)
    assert (serving.port, serving.max_queue) == (50051, 128)


def test_flags_go_before_the_environment_and_that_before_the_file(file):
    path = file('port = 1\nmax_queue = 1\nmax_batch_size = 1\nmodel = "m"\ngrace_s = 2')
    environment = {"SPIKETRAIN_PORT": "2", "SPIKETRAIN_MAX_QUEUE": "2", "PATH": "x"}
    model, serving = read_settings(path, environment, {"port": 3, "max_queue": None})
    assert (serving.port, serving.max_queue, serving.max_batch_size) == (3, 2, 1)
    assert (model.model, serving.grace_s) == ("m", 2)


def test_a_number_of_the_environment_is_read_as_its_settings_type():
    _, serving = read_settings(None, {"SPIKETRAIN_GRACE_S": "0.5"}, {})
    assert serving.grace_s == 0.5


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False)])
def test_true_and_false_of_the_environment_are_read_as_such(text, value):
    assert read_settings(None, {"SPIKETRAIN_SESSION_SYNC": text}, {})[1].session_sync is value


def test_variables_that_mean_something_else_are_left_alone():
    read_settings(None, {"SPIKETRAIN_ISA": "baseline"}, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", ["serve.toml", "prot is unknown"]),
        ('port = "1"', ["serve.toml", "port must be an integer", "'1'"]),
        ("max_queue = true", ["serve.toml", "max_queue must be an integer", "True"]),
        ("model = 1", ["serve.toml", "model must be a text", "1"]),
        ('grace_s = "x"', ["serve.toml", "grace_s must be a number"]),
        ("port = 70000", ["port must be at most 65535", "70000"]),
        ("threads = 0", ["threads must be at least 1", "0"]),
        ('log_level = "loud"', ["log_level must be one of", "loud"]),
        ("port =", ["serve.toml", "must be TOML"]),
        ('tls_cert = "x"', ["tls_cert and tls_key must be given together"]),
        ('tls_client_ca = "x"', ["tls_client_ca must be left out"]),
    ],
)
def test_a_mistake_in_the_file_is_named(file, text, words):
    with pytest.raises(ConfigError) as caught:
        read_settings(file(text), {}, {})
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read"):
        read_settings("nowhere.toml", {}, {})


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"SPIKETRAIN_PORT": "x"}, ["SPIKETRAIN_PORT must be an integer", "'x'"]),
        ({"SPIKETRAIN_PRT": "1"}, ["SPIKETRAIN_PRT is unknown"]),
        ({"SPIKETRAIN_SESSION_SYNC": "1"}, ["SPIKETRAIN_SESSION_SYNC must be true or false"]),
        ({"SPIKETRAIN_GRACE_S": "soon"}, ["SPIKETRAIN_GRACE_S must be a number", "'soon'"]),
    ],
)
def test_a_mistake_in_the_environment_is_named(environment, words):
    with pytest.raises(ConfigError) as caught:
        read_settings(None, environment, {})
    for word in words:
        assert word in str(caught.value)


def test_limits_of_calls_and_connections_have_flags():
    flags = inspect.signature(serve).parameters
    for name in (
        "max_calls",
        "max_connections",
        "request_bytes",
        "request_timeout_s",
        "idle_stream_s",
        "idle_connection_s",
    ):
        assert name in flags
