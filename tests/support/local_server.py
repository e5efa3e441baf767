"""A server on a free port of this machine, of a fake model if no other is given, and a channel."""

import asyncio
import time
from contextlib import asynccontextmanager

import grpc
from fake_model import PATIENCE_S, FakeModel
from grpc_health.v1 import health_pb2_grpc
from grpc_status import rpc_status

import spiketrain.v1.generation_pb2 as pb
import spiketrain.v1.generation_pb2_grpc as generation_grpc
import spiketrain.v1.models_pb2_grpc as models_grpc
import spiketrain.v1.scoring_pb2_grpc as scoring_grpc
import spiketrain.v1.sessions_pb2_grpc as sessions_grpc
import spiketrain.v1.tokenization_pb2_grpc as tokenization_grpc
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.rpc.server import Server


class Served:
    """A running server, its engine and model, and a channel to it."""

    def __init__(self, server, engine, port, channel):
        self.server, self.engine, self.model = server, engine, engine.model
        self.port, self.channel = port, channel
        self.generation = generation_grpc.GenerationStub(channel)
        self.scoring = scoring_grpc.ScoringStub(channel)
        self.sessions = sessions_grpc.SessionsStub(channel)
        self.models = models_grpc.ModelsStub(channel)
        self.tokenization = tokenization_grpc.TokenizationStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)


@asynccontextmanager
async def serving(model=None, template=None, clock=time.monotonic, **fields):
    config = ServingConfig(**{"port": 0, "flush_interval_s": 0.0, "max_batch_size": 1, **fields})
    engine = Engine(model or FakeModel(), config, clock=clock)
    server = Server(engine, "fake", template)
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            yield Served(server, engine, port, channel)
        finally:
            gate = getattr(engine.model, "gate", None)
            if gate is not None:
                gate.release(1000)
            await server.stop(0.0)


def request(text="abc", **fields):
    return pb.GenerateRequest(text=text, **fields)


async def until(condition):
    async def turn():
        while not condition():
            await asyncio.sleep(0)

    await asyncio.wait_for(turn(), PATIENCE_S)


def details_of(error, kind):
    status = rpc_status.from_call(error)
    for detail in status.details:
        if detail.Is(kind.DESCRIPTOR):
            found = kind()
            detail.Unpack(found)
            return found
    raise AssertionError(f"no {kind.__name__} in {status}")
