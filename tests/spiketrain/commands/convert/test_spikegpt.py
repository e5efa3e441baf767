"""A SpikeGPT checkpoint converts, generates and streams over gRPC."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from tiny import byte_tokenizer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from command_in_process import call  # noqa: E402

from spiketrain import runtime  # noqa: E402
from spiketrain.lm.families.spikegpt import Config, Model  # noqa: E402
from spiketrain.serving.client.client import Client  # noqa: E402
from spiketrain.serving.config import ServingConfig  # noqa: E402
from spiketrain.serving.engine.engine import Engine  # noqa: E402
from spiketrain.serving.request.events import Delta  # noqa: E402
from spiketrain.serving.request.request import Request  # noqa: E402
from spiketrain.serving.rpc.server import Server  # noqa: E402

DATA = Path(__file__).parents[3] / "data" / "spikegpt"


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    sizes = {"vocab_size": 257, "hidden_size": 32, "num_hidden_layers": 2}
    Model(Config(**sizes)).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(byte_tokenizer(257)))
    return tmp_path / "model"


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, Delta))


def over_grpc(model, request):
    """The text that a server of this model streams."""

    def call(port):
        with Client(f"127.0.0.1:{port}") as client:
            return text_of(client.generate_stream(request))

    async def serve():
        server = Server(Engine(model, ServingConfig(port=0)), "converted")
        port = await server.start()
        try:
            return await asyncio.to_thread(call, port)
        finally:
            await server.stop(0.0)

    return asyncio.run(serve())


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--weights", "bfloat16"),
        ("--weights", "int8", "--head-weights", "int4"),
        ("--weights", "int4"),
    ],
    ids=str,
)
def test_a_converted_checkpoint_generates_and_streams(
    checkpoint, tmp_path, monkeypatch, capsys, options
):
    package = tmp_path / "package"
    assert call(monkeypatch, "convert", checkpoint, package, *options) == 0
    formats = dict(zip(options[::2], options[1::2], strict=True))
    body = formats.get("--weights", "float32")
    model = runtime.load_model(package)
    weights = model.config["spiketrain"]["weights"]
    assert weights == {
        "embedding": "bits",
        "body": body,
        "head": formats.get("--head-weights", body),
    }
    capsys.readouterr()
    sampling = ("--seed", 5, "--max-new-tokens", 20, "--temperature", 1)
    assert call(monkeypatch, "generate", "The cat", "--model", package, *sampling) == 0
    text, figures = capsys.readouterr()
    assert "firing rate" in figures
    request = Request("The cat", seed=5, max_new_tokens=20, temperature=1.0)
    assert over_grpc(model, request) == text != ""
    assert call(monkeypatch, "inspect", package, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 2 * 257 * 32 + 2 * (13 * 32**2 + 15 * 32) + 4 * 32
    assert found["state_formula"].endswith("= 1792 bytes")


@pytest.mark.parametrize("name", ["v77_l3", "v97_l3"])
def test_an_official_file_gives_the_official_logits_and_spikes(tmp_path, monkeypatch, name):
    package = tmp_path / "package"
    assert call(monkeypatch, "convert", DATA / f"{name}.pth", package) == 0
    model = runtime.load_model(package)
    assert model.config["spiketrain"]["fidelity"] == "exact"
    with np.load(DATA / f"{name}.npz") as arrays:
        golden = dict(arrays)
    logits = model.forward(model.new_state(), golden["tokens"][:-1])
    assert np.abs(logits - golden["logits"]).max() < 1e-4
    spikes = [x.events for x in model.activity().layers if not x.name.endswith(".value")]
    assert spikes == golden["spike_count"].ravel().tolist()


def test_a_head_of_another_kind_than_the_body_is_refused_in_one_line(
    checkpoint, tmp_path, monkeypatch, capsys
):
    options = ("--weights", "int8", "--head-weights", "float32")
    assert call(monkeypatch, "convert", checkpoint, tmp_path / "p", *options) == 1
    assert "weights.head must be one of" in capsys.readouterr().err
    assert call(monkeypatch, "convert", checkpoint, tmp_path / "p", "--head-weights", "no") == 2
