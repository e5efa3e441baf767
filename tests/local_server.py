"""A server of a fake model on a free port of this machine, for tests over a real channel."""

from contextlib import asynccontextmanager

import grpc
from fake_model import FakeModel
from grpc_health.v1 import health_pb2_grpc

import spiketrain.v1.generation_pb2_grpc as generation_grpc
import spiketrain.v1.models_pb2_grpc as models_grpc
from serving.config import ServingConfig
from serving.engine import Engine
from serving.server import Server


class Served:
    """A running server, its engine and model, and a channel to it."""

    def __init__(self, server, engine, port, channel):
        self.server, self.engine, self.model = server, engine, engine.model
        self.port, self.channel = port, channel
        self.generation = generation_grpc.GenerationStub(channel)
        self.models = models_grpc.ModelsStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)


@asynccontextmanager
async def serving(model=None, **fields):
    config = ServingConfig(**{"port": 0, "flush_interval_s": 0.0, "max_batch_size": 1, **fields})
    engine = Engine(model or FakeModel(), config)
    server = Server(engine, "fake")
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            yield Served(server, engine, port, channel)
        finally:
            if engine.model.gate is not None:
                engine.model.gate.release(1000)
            await server.stop(0.0)
