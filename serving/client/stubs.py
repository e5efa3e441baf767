"""Stubs: the RPCs of a server on one channel, by name."""

from collections.abc import Callable
from typing import Any

import spiketrain.v1.generation_pb2_grpc as generation_grpc
import spiketrain.v1.models_pb2_grpc as models_grpc
import spiketrain.v1.scoring_pb2_grpc as scoring_grpc
import spiketrain.v1.sessions_pb2_grpc as sessions_grpc
import spiketrain.v1.tokenization_pb2_grpc as tokenization_grpc

_SERVICES = {
    "Generation": generation_grpc.GenerationStub,
    "Models": models_grpc.ModelsStub,
    "Scoring": scoring_grpc.ScoringStub,
    "Sessions": sessions_grpc.SessionsStub,
    "Tokenization": tokenization_grpc.TokenizationStub,
}


def stubs(channel: Any) -> dict[str, Callable[..., Any]]:
    """What makes each RPC on a channel, under "Service.Method"."""
    return {
        f"{service}.{method}": call
        for service, stub in _SERVICES.items()
        for method, call in vars(stub(channel)).items()
    }
