"""Methods: what both clients can ask of a server. Each description stands here alone."""

from collections.abc import Iterable, Sequence
from typing import Any

import spiketrain.v1.models_pb2 as models_pb
import spiketrain.v1.scoring_pb2 as scoring_pb
import spiketrain.v1.sessions_pb2 as sessions_pb
import spiketrain.v1.tokenization_pb2 as tokenization_pb
from spiketrain.serving.client.description import (
    Gathered,
    ReplyMethod,
    Stream,
    StreamMethod,
    Unary,
)
from spiketrain.serving.client.retry import unguarded
from spiketrain.serving.client.wire import to_append, to_import, to_score, to_score_pieces
from spiketrain.serving.request.chat import Chat
from spiketrain.serving.request.events import Completed, Event, join
from spiketrain.serving.request.request import Request
from spiketrain.serving.rpc.chat_wire import from_chat
from spiketrain.serving.rpc.reply_wire import from_reply
from spiketrain.serving.rpc.wire import from_request


class Methods:
    """Descriptions of calls; `with_methods` makes them functions of a client."""

    @ReplyMethod
    def generate(self, request: Request) -> Gathered[Event, Completed]:
        """A whole completion, the first of several."""
        return Gathered(stream=_events(request), gather=lambda events: join(events)[0])

    @ReplyMethod
    def generate_all(self, request: Request) -> Gathered[Event, list[Completed]]:
        """The request's n completions, by index."""
        return Gathered(stream=_events(request), gather=join)

    @StreamMethod
    def generate_stream(self, request: Request) -> Stream[Event]:
        """The events of a completion as they come; closing the iterator cancels the request."""
        return _events(request)

    @ReplyMethod
    def tokenize(self, text: str) -> Unary[list[int]]:
        """Token ids of a text."""
        return Unary(
            rpc="Tokenization.Tokenize",
            sent=tokenization_pb.TokenizeRequest(text=text),
            read=lambda reply: list(reply.token_ids),
        )

    @ReplyMethod
    def detokenize(self, token_ids: Sequence[int], continues: bool = False) -> Unary[str]:
        """The text of tokens; `continues` as in tokenization.proto."""
        return Unary(
            rpc="Tokenization.Detokenize",
            sent=tokenization_pb.DetokenizeRequest(token_ids=token_ids, continues=continues),
            read=_text,
        )

    @ReplyMethod
    def render_chat(self, chat: Chat) -> Unary[str]:
        """The prompt that the model's chat template makes of messages."""
        message = tokenization_pb.RenderChatRequest(chat=from_chat(chat))
        return Unary(rpc="Tokenization.RenderChat", sent=message, read=_text)

    @ReplyMethod
    def get_model(self) -> Unary[models_pb.Model]:
        """The served model as a `spiketrain.v1.Model` message."""
        return Unary(rpc="Models.GetModel", sent=models_pb.GetModelRequest(), read=_whole)

    @ReplyMethod
    def score(
        self,
        context: str | Sequence[int],
        continuation: str | Sequence[int],
        per_token: bool = False,
        dial: float | None = None,
    ) -> Unary[scoring_pb.ScoreResponse]:
        """How likely a continuation is after a context, both text or both token ids."""
        message = to_score(context, continuation, per_token, dial)
        return Unary(rpc="Scoring.Score", sent=message, read=_whole)

    @StreamMethod
    def score_stream(
        self,
        pieces: Iterable[str | Sequence[int]],
        per_token: bool = False,
        dial: float | None = None,
    ) -> Stream[scoring_pb.ScoreStreamResponse]:
        """How likely each piece of one text is after those before, as the pieces are read."""
        messages = to_score_pieces(pieces, per_token, dial)
        return Stream(rpc="Scoring.ScoreStream", sent=messages, read=_whole, once=True)

    @ReplyMethod
    def create_session(
        self, ttl_s: float | None = None, seed: int | None = None, dial: float | None = None
    ) -> Unary[sessions_pb.Session]:
        """An empty session; its id goes into SessionTurn."""
        message = sessions_pb.CreateSessionRequest(ttl_s=ttl_s, seed=seed, dial=dial)
        return Unary(rpc="Sessions.CreateSession", sent=message, read=_whole, changes=True)

    @ReplyMethod
    def get_session(self, session_id: str) -> Unary[sessions_pb.Session]:
        """What is known of a session."""
        message = sessions_pb.GetSessionRequest(id=session_id)
        return Unary(rpc="Sessions.GetSession", sent=message, read=_whole)

    @ReplyMethod
    def list_sessions(
        self, page_token: str = "", page_size: int = 100
    ) -> Unary[list[sessions_pb.Session]]:
        """The caller's sessions with ids greater than `page_token`, in order of ids.

        At most `page_size`; the last id of a page is the token of the next one.
        """
        return Unary(
            rpc="Sessions.ListSessions",
            sent=sessions_pb.ListSessionsRequest(page_token=page_token, page_size=page_size),
            read=lambda reply: list(reply.sessions),
        )

    @ReplyMethod
    def delete_session(self, session_id: str, etag: str = "") -> Unary[None]:
        """Forget a session."""
        message = sessions_pb.DeleteSessionRequest(id=session_id, etag=etag)
        return Unary(rpc="Sessions.DeleteSession", sent=message, read=_nothing, changes=not etag)

    @ReplyMethod
    def append(
        self, session_id: str, content: str | Sequence[int], etag: str = ""
    ) -> Unary[sessions_pb.Session]:
        """The session once it has read text or token ids."""
        return Unary(
            rpc="Sessions.Append",
            sent=to_append(session_id, content, etag),
            read=lambda reply: reply.session,
            changes=not etag,
        )

    @ReplyMethod
    def fork(
        self,
        session_id: str,
        checkpoint: str = "",
        etag: str = "",
        ttl_s: float | None = None,
        seed: int | None = None,
        dial: float | None = None,
    ) -> Unary[sessions_pb.Session]:
        """A new session where another one, or a checkpoint of it, is."""
        message = sessions_pb.ForkRequest(
            id=session_id, checkpoint=checkpoint, etag=etag, ttl_s=ttl_s, seed=seed, dial=dial
        )
        return Unary(rpc="Sessions.Fork", sent=message, read=_whole, changes=True)

    @ReplyMethod
    def checkpoint(self, session_id: str, name: str, etag: str = "") -> Unary[sessions_pb.Session]:
        """The session, with its place kept under a name."""
        message = sessions_pb.CheckpointRequest(id=session_id, name=name, etag=etag)
        return Unary(rpc="Sessions.Checkpoint", sent=message, read=_whole, changes=not etag)

    @ReplyMethod
    def rollback(self, session_id: str, name: str, etag: str = "") -> Unary[sessions_pb.Session]:
        """The session, back at a checkpoint."""
        message = sessions_pb.RollbackRequest(id=session_id, name=name, etag=etag)
        return Unary(rpc="Sessions.Rollback", sent=message, read=_whole, changes=not etag)

    @ReplyMethod
    def export_session(self, session_id: str) -> Gathered[bytes, bytes]:
        """A session as bytes, for another server of the same model."""
        pieces: Stream[bytes] = Stream(
            rpc="Sessions.Export",
            sent=sessions_pb.ExportRequest(id=session_id),
            read=lambda reply: reply.data,
            once=True,
        )
        return Gathered(stream=pieces, gather=b"".join)

    @ReplyMethod
    def import_session(self, blob: bytes, ttl_s: float | None = None) -> Unary[sessions_pb.Session]:
        """A new session from exported bytes."""
        messages = iter(to_import(blob, ttl_s))
        return Unary(rpc="Sessions.Import", sent=messages, read=_whole, changes=True, once=True)


def _events(request: Request) -> Stream[Event]:
    return Stream(
        rpc="Generation.GenerateStream",
        sent=from_request(request),
        read=from_reply,
        changes=unguarded(request),
        timeout_s=request.timeout_s,
    )


def _whole(reply: Any) -> Any:
    return reply


def _text(reply: Any) -> str:
    return str(reply.text)


def _nothing(reply: Any) -> None:
    """An empty reply says that the call is done."""
