"""A thin client: plain data in and out, errors of the server as ServerError."""

from collections.abc import Iterator
from typing import Any

import grpc

import spiketrain.v1.generation_pb2_grpc as generation_grpc
import spiketrain.v1.models_pb2 as models_pb
import spiketrain.v1.models_pb2_grpc as models_grpc
from serving.errors import ConfigError, ServingError
from serving.events import Event
from serving.request import Request
from serving.wire import from_reply, from_request


class ServerError(ServingError):
    """The server refused a request, failed on it, or is not there. `code`: canonical name."""

    def __init__(self, error: Any) -> None:
        self.code: str = error.code().name
        super().__init__(f"server: {self.code}: {error.details()}")


class Client:
    """A connection to one server, address "host:port"; a context that closes it."""

    def __init__(self, address: str) -> None:
        _check_address(address)
        self._channel = grpc.insecure_channel(
            address, options=[("grpc.max_receive_message_length", -1)]
        )
        self._generation = generation_grpc.GenerationStub(self._channel)
        self._models = models_grpc.ModelsStub(self._channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; running calls are cancelled."""
        self._channel.close()

    def generate_stream(self, request: Request) -> Iterator[Event]:
        """The events of a completion as they come; closing the iterator cancels the request."""
        call = self._generation.GenerateStream(from_request(request), timeout=request.timeout_s)
        try:
            for message in call:
                event = from_reply(message)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            raise ServerError(error) from None
        finally:
            call.cancel()

    def get_model(self) -> Any:
        """The served model as a `spiketrain.v1.Model` message."""
        try:
            return self._models.GetModel(models_pb.GetModelRequest())
        except grpc.RpcError as error:
            raise ServerError(error) from None


def _check_address(address: str) -> None:
    """Refuse what gRPC would take for another port: 443 for none, 34463 for 99999."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or not 1 <= int(port) <= 65535:
        raise ConfigError(f"server must be HOST:PORT, port from 1 to 65535, got {address!r}")
