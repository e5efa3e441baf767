"""A client: plain data in and out, errors of the server as ServerError, retries where safe."""

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import Any

import grpc

import spiketrain.v1.generation_pb2_grpc as generation_grpc
import spiketrain.v1.models_pb2 as models_pb
import spiketrain.v1.models_pb2_grpc as models_grpc
import spiketrain.v1.scoring_pb2 as scoring_pb
import spiketrain.v1.scoring_pb2_grpc as scoring_grpc
import spiketrain.v1.sessions_pb2 as sessions_pb
import spiketrain.v1.sessions_pb2_grpc as sessions_grpc
import spiketrain.v1.tokenization_pb2 as tokenization_pb
import spiketrain.v1.tokenization_pb2_grpc as tokenization_grpc
from spiketrain.serving.client.channel import Access, open_channel
from spiketrain.serving.client.retry import Retry, ServerError, unguarded
from spiketrain.serving.client.wire import to_append, to_import, to_score, to_score_pieces
from spiketrain.serving.request.chat import Chat
from spiketrain.serving.request.events import Completed, Event, join
from spiketrain.serving.request.request import Request
from spiketrain.serving.rpc.chat_wire import from_chat
from spiketrain.serving.rpc.reply_wire import from_reply
from spiketrain.serving.rpc.wire import from_request


class Client:
    """A connection to one server, address "host:port"; a context that closes it. Any thread."""

    def __init__(
        self, address: str, access: Access | None = None, retry: Retry | None = None
    ) -> None:
        """Connects when first used. Raises ConfigError for what is no address."""
        access = access or Access()
        self._channel = open_channel(grpc, address, access)
        self._metadata = access.metadata
        self._retry = retry or Retry()
        self._generation = generation_grpc.GenerationStub(self._channel)
        self._models = models_grpc.ModelsStub(self._channel)
        self._scoring = scoring_grpc.ScoringStub(self._channel)
        self._sessions = sessions_grpc.SessionsStub(self._channel)
        self._tokenization = tokenization_grpc.TokenizationStub(self._channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; running calls are cancelled."""
        self._channel.close()

    def generate(self, request: Request) -> Completed:
        """A whole completion, the first of several."""
        return self.generate_all(request)[0]

    def generate_all(self, request: Request) -> list[Completed]:
        """The request's n completions, by index."""
        return join(self.generate_stream(request))

    def generate_stream(self, request: Request) -> Generator[Event, None, None]:
        """The events of a completion as they come; closing the iterator cancels the request."""
        message, attempt = from_request(request), 0
        while True:
            attempt += 1
            begun = False
            try:
                with closing(self._events(message, request.timeout_s)) as events:
                    for event in events:
                        begun = True
                        yield event
                return
            except ServerError as error:
                wait_s = self._retry.wait_s(error, attempt, unguarded(request))
                if begun or wait_s is None:
                    raise
                time.sleep(wait_s)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text."""
        wanted = tokenization_pb.TokenizeRequest(text=text)
        return list(self._call(self._tokenization.Tokenize, wanted).token_ids)

    def detokenize(self, token_ids: Sequence[int], continues: bool = False) -> str:
        """The text of tokens; `continues` as in tokenization.proto."""
        wanted = tokenization_pb.DetokenizeRequest(token_ids=token_ids, continues=continues)
        return str(self._call(self._tokenization.Detokenize, wanted).text)

    def render_chat(self, chat: Chat) -> str:
        """The prompt that the model's chat template makes of messages."""
        wanted = tokenization_pb.RenderChatRequest(chat=from_chat(chat))
        return str(self._call(self._tokenization.RenderChat, wanted).text)

    def get_model(self) -> Any:
        """The served model as a `spiketrain.v1.Model` message."""
        return self._call(self._models.GetModel, models_pb.GetModelRequest())

    def score(
        self,
        context: str | Sequence[int],
        continuation: str | Sequence[int],
        per_token: bool = False,
        dial: float | None = None,
    ) -> scoring_pb.ScoreResponse:
        """How likely a continuation is after a context, both text or both token ids."""
        wanted = to_score(context, continuation, per_token, dial)
        return self._call(self._scoring.Score, wanted)

    def score_stream(
        self,
        pieces: Iterable[str | Sequence[int]],
        per_token: bool = False,
        dial: float | None = None,
    ) -> Generator[scoring_pb.ScoreStreamResponse, None, None]:
        """How likely each piece of one text is after those before, as the pieces are read."""
        wanted = to_score_pieces(pieces, per_token, dial)
        call = self._scoring.ScoreStream(wanted, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise ServerError(error) from None
        finally:
            call.cancel()

    def create_session(
        self, ttl_s: float | None = None, seed: int | None = None, dial: float | None = None
    ) -> sessions_pb.Session:
        """An empty session; its id goes into SessionTurn."""
        wanted = sessions_pb.CreateSessionRequest(ttl_s=ttl_s, seed=seed, dial=dial)
        return self._call(self._sessions.CreateSession, wanted, changes=True)

    def get_session(self, session_id: str) -> sessions_pb.Session:
        """What is known of a session."""
        wanted = sessions_pb.GetSessionRequest(id=session_id)
        return self._call(self._sessions.GetSession, wanted)

    def list_sessions(self, after: str = "", count: int = 100) -> list[sessions_pb.Session]:
        """The caller's first `count` sessions with an id greater than `after`, in order of ids."""
        wanted = sessions_pb.ListSessionsRequest(page_token=after, page_size=count)
        return list((self._call(self._sessions.ListSessions, wanted)).sessions)

    def delete_session(self, session_id: str, etag: str = "") -> None:
        """Forget a session."""
        wanted = sessions_pb.DeleteSessionRequest(id=session_id, etag=etag)
        self._call(self._sessions.DeleteSession, wanted, changes=not etag)

    def append(
        self, session_id: str, content: str | Sequence[int], etag: str = ""
    ) -> sessions_pb.Session:
        """The session once it has read text or token ids."""
        wanted = to_append(session_id, content, etag)
        reply = self._call(self._sessions.Append, wanted, changes=not etag)
        return reply.session

    def fork(
        self,
        session_id: str,
        checkpoint: str = "",
        etag: str = "",
        ttl_s: float | None = None,
        seed: int | None = None,
        dial: float | None = None,
    ) -> sessions_pb.Session:
        """A new session where another one, or a checkpoint of it, is."""
        wanted = sessions_pb.ForkRequest(
            id=session_id, checkpoint=checkpoint, etag=etag, ttl_s=ttl_s, seed=seed, dial=dial
        )
        return self._call(self._sessions.Fork, wanted, changes=True)

    def checkpoint(self, session_id: str, name: str, etag: str = "") -> sessions_pb.Session:
        """The session, with its place kept under a name."""
        wanted = sessions_pb.CheckpointRequest(id=session_id, name=name, etag=etag)
        return self._call(self._sessions.Checkpoint, wanted, changes=not etag)

    def rollback(self, session_id: str, name: str, etag: str = "") -> sessions_pb.Session:
        """The session, back at a checkpoint."""
        wanted = sessions_pb.RollbackRequest(id=session_id, name=name, etag=etag)
        return self._call(self._sessions.Rollback, wanted, changes=not etag)

    def export_session(self, session_id: str) -> bytes:
        """A session as bytes, for another server of the same model."""
        call = self._sessions.Export(
            sessions_pb.ExportRequest(id=session_id), metadata=self._metadata
        )
        try:
            return b"".join(piece.data for piece in call)
        except grpc.RpcError as error:
            raise ServerError(error) from None

    def import_session(self, blob: bytes, ttl_s: float | None = None) -> sessions_pb.Session:
        """A new session from exported bytes."""
        try:
            return self._sessions.Import(iter(to_import(blob, ttl_s)), metadata=self._metadata)
        except grpc.RpcError as error:
            raise ServerError(error) from None

    def _events(self, message: Any, timeout_s: float | None) -> Generator[Event, None, None]:
        call = self._generation.GenerateStream(message, timeout=timeout_s, metadata=self._metadata)
        try:
            for reply in call:
                event = from_reply(reply)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            raise ServerError(error) from None
        finally:
            call.cancel()

    def _call(self, method: Callable[..., Any], message: Any, changes: bool = False) -> Any:
        attempt = 0
        while True:
            attempt += 1
            try:
                return method(message, metadata=self._metadata)
            except grpc.RpcError as failed:
                error = ServerError(failed)
            wait_s = self._retry.wait_s(error, attempt, changes)
            if wait_s is None:
                raise error
            time.sleep(wait_s)
