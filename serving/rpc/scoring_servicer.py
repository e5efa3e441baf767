"""The Scoring service: messages to calls of Scoring, and back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import grpc

import spiketrain.v1.scoring_pb2 as pb
import spiketrain.v1.scoring_pb2_grpc as scoring_grpc
from spiketrain.runtime.errors import RequestError
from spiketrain.serving.engine.scoring import Scores, ScoreStream, Scoring
from spiketrain.serving.rpc.inflight import InFlight
from spiketrain.serving.rpc.status import errors_as_status
from spiketrain.serving.rpc.timeout import timeout_s
from spiketrain.serving.rpc.wire import given, ids_of


class ScoringServicer(scoring_grpc.ScoringServicer):
    """Scoring: text in, log-probabilities out."""

    def __init__(self, scoring: Scoring, inflight: InFlight) -> None:
        self._scoring = scoring
        self._inflight = inflight

    async def Score(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """A continuation after its context."""
        with self._inflight:
            async with errors_as_status(context):
                before = _content(request, "context", "context_")
                after = _content(request, "continuation", "continuation_")
                dial = given(request, "dial")
                scores = await self._scoring.score(before, after, timeout_s(context), dial)
                return await asyncio.to_thread(to_scores, scores, request.per_token)

    async def ScoreStream(
        self, request_iterator: AsyncIterator[Any], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Any]:
        """A text piece by piece."""
        with self._inflight:
            sent = self._inflight.messages(request_iterator)
            async with errors_as_status(context), aclosing(sent) as requests:
                with self._scoring.stream():
                    async for reply in self._replies(requests, context):
                        yield reply

    async def _replies(
        self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Any]:
        stream = None
        async for request in requests:
            content = _content(request, "content", "")
            dial = given(request, "dial")
            if stream is None:
                stream = ScoreStream(self._scoring, dial)
            elif dial is not None:
                raise RequestError("dial", "be in the first message alone", dial)
            scores = await stream.score(content, timeout_s(context))
            yield pb.ScoreStreamResponse(
                piece=await asyncio.to_thread(to_scores, scores, request.per_token),
                total_log_probability=stream.log_probability,
                total_tokens=stream.num_tokens,
                total_bytes=stream.num_bytes,
            )


def to_scores(scores: Scores, per_token: bool) -> Any:
    """Scores -> ScoreResponse."""
    reply = pb.ScoreResponse(
        log_probability=scores.log_probability,
        is_greedy=bool(scores.greedy.all()),
        tokens=len(scores.token_ids),
        bytes=scores.num_bytes,
    )
    if per_token:
        nats, greedy = scores.nats.tolist(), scores.greedy.tolist()
        for token, value, first in zip(scores.token_ids, nats, greedy, strict=True):
            reply.token_scores.add(token_id=token, log_probability=-value, is_greedy=first)
    return reply


def _content(message: Any, name: str, prefix: str) -> str | Sequence[int]:
    """The text or the token ids of one of the message's choices. RequestError without."""
    kind = message.WhichOneof(name)
    if kind is None:
        raise RequestError(name, "be given as text or as token_ids", None)
    value = getattr(message, kind)
    return value if kind == f"{prefix}text" else ids_of(value.ids)
